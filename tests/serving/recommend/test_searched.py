"""A job searches all vectors where it is asked to, and says how it searched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys.features.bundle.files import read_request_probe
from recsys.features.bundle.request_probe import without_answers
from recsys.features.bundle.searching import VectorSearch
from recsys.retrieval.index.exact import ExactVectors
from recsys.serving.recommend import searched
from recsys.serving.recommend.scorer import Scorer


def test_the_index_is_left_alone_where_search_is_exact(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer.open(trained)
    found_by = scorer.found_by
    assert isinstance(found_by, VectorSearch)
    wrong = ExactVectors(torch.flip(found_by.vectors, [0]))
    scorer = replace(scorer, found_by=replace(found_by, index=wrong))
    probe = without_answers(read_request_probe(scorer.bundle))
    asked = replace(scorer, exact=True).score(probe).column("items")
    assert asked == Scorer.open(trained).score(probe).column("items")
    assert asked != scorer.score(probe).column("items")
    assert (scorer.searched, replace(scorer, exact=True).searched) == ("exact", "exact")
    facts = {"kind": "ivf", "recall_at_10": 0.96}
    monkeypatch.setattr(searched, "read_facts", lambda read: facts)
    assert scorer.searched == "by the ivf index, recall@10 0.9600 when it was built"
    assert replace(scorer, exact=True).searched == "exact"
    other = replace(scorer, exact=True).job()
    assert scorer.job() == {**other, "search": scorer.searched}  # the two are no same job
    assert "search" not in other
