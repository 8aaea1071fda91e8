"""Exports over shorter vectors: asked as export.json says; from both doors."""

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file
from torch.nn import functional as F

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, UserError
from recsys.features.bundle.files import read_request_probe
from recsys.layers.geometry import neighbours_of
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.recall import recall_against_exact
from recsys.retrieval.index.reduced import Reduced, ReductionSize, load_reduced
from recsys.serving.answering.rows import Rows
from recsys.serving.export.options import ExportOptions
from recsys.serving.export.query_encoding import EncodingSize, query_vectors_of_requests
from recsys.serving.export.retrieval import export_index
from recsys.serving.export.short_vectors import build_short
from recsys.serving.recommend.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(trained: Path) -> Scorer:
    return Scorer.open(trained)


@pytest.fixture(scope="module")
def out(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line writes."""
    folder = tmp_path_factory.mktemp("export") / "index"
    arguments = ("--to", "faiss", "--reduce", "leanvec:12", "--out", str(folder))
    found = CliRunner().invoke(main, ["export", str(trained), *arguments, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["dim"] == 12
    return folder


def opened(folder: Path, scorer: Scorer) -> Reduced:
    space = json.loads((folder / "index.json").read_text())["space_id"]
    return load_reduced(
        lambda name: (folder / name).read_bytes(), expected_space_id=space, source=folder
    )


def test_the_engine_finds_nearly_what_exact_search_finds(out: Path, scorer: Scorer) -> None:
    index = opened(out, scorer)
    queries = query_vectors_of_requests(scorer, read_request_probe(scorer.bundle))
    assert torch.equal(index.vectors, scorer.vectors)
    assert recall_against_exact(index, queries, scorer.vectors, 10) > 0.93


def test_whoever_does_as_export_json_says_gets_the_same_lists(out: Path, scorer: Scorer) -> None:
    """With faiss and numpy alone."""
    how = json.loads((out / "export.json").read_text())
    depth = how["reduction"]["depth"]
    assert f"for {depth} candidates" in how["short_vectors"]
    assert "`queries` of reduction.safetensors, (12, 64)" in how["short_vectors"]
    matrices, whole = load_file(out / "reduction.safetensors"), load_file(out / "whole.safetensors")
    graph = faiss.read_index(str(out / "index.faiss"))
    graph.hnsw.efSearch = max(how["ef"], 2 * depth)
    queries = query_vectors_of_requests(scorer, read_request_probe(scorer.bundle))[:50]
    q = queries.numpy()
    rows = graph.search(q @ matrices["queries"].T, depth)[1]
    scores = np.einsum("qe,qke->qk", q, whole["vectors"][rows])
    order = np.argsort(-scores, axis=1)[:, :10]
    wanted = opened(out, scorer).search(queries, 10)[0]
    np.testing.assert_allclose(np.take_along_axis(scores, order, 1), wanted.numpy(), rtol=1e-5)
    # A new item, written as the page says, lies where the index has it.
    short = whole["vectors"][7] @ matrices["items"].T
    np.testing.assert_allclose(short, graph.reconstruct(7), atol=1e-5)


def test_the_facts_are_of_final_lists(out: Path, scorer: Scorer) -> None:
    facts, how = (json.loads((out / name).read_text()) for name in ("index.json", "export.json"))
    assert (facts["dim"], facts["reduction"]["whole_dim"], facts["normalised"]) == (12, 64, False)
    assert facts["recall_at_10"] >= 0.95
    assert how["recall_at_10"] == facts["recall_at_10"]
    probe = read_request_probe(scorer.bundle).num_rows
    assert facts["reduction"]["learnt_from_queries"] == -(-probe // 2)
    assert facts["recall_queries"] >= 1000
    assert "ids.parquet" in {path.name for path in out.iterdir()}


def test_python_takes_the_same(trained: Path, tmp_path: Path) -> None:
    facts = recsys.export(trained, tmp_path / "a", to="exact", reduce="pca:16")
    assert (facts["dim"], facts["reduction"]["solver"], facts["kind"]) == (16, "pca", "exact")


def test_what_is_learnt_from_is_not_what_is_measured_with(tmp_path: Path) -> None:
    """Queries in turn look at two halves of the numbers; those learnt from need the first alone."""
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(2000, 16, generator=generator), dim=1)
    queries = torch.randn(200, 2, 16, generator=generator)
    queries[::2, :, 8:], queries[1::2, :, :8] = 0, 0
    queries = neighbours_of(F.normalize(queries, dim=2), "sphere", torch.zeros(16))
    request = IndexRequest(vectors, "sphere", queries.flatten(0, 1), "s", "i", "exact", 0.0)
    facts: dict[str, Any] = build_short(tmp_path, request, ReductionSize("leanvec", 8), queries)
    assert facts["reduction"]["learnt_from_queries"] == 200
    assert facts["recall_at_10"] < 0.5


def test_what_cannot_be_shortened_is_refused(trained: Path, tmp_path: Path) -> None:
    size, wrong = ReductionSize("leanvec", 8), tmp_path / "no"
    with pytest.raises(ConfigError, match="over the shorter vectors: give --to exact, flat, faiss"):
        export_index(trained, "parquet", wrong, min_recall=0, reduced=size)
    with pytest.raises(ConfigError, match="give one of the two"):
        export_index(trained, "exact", wrong, min_recall=0, encoded=EncodingSize(), reduced=size)
    with pytest.raises(ConfigError, match="--reduce is about vectors, and a ranker has none"):
        Rows().export(trained, "onnx", wrong, ExportOptions(min_recall=0, reduced=size))
    with pytest.raises(ConfigError, match=r"leanvec:64 is no shorter .* name a width below 64"):
        recsys.export(trained, wrong, to="exact", reduce="leanvec:64")
    with pytest.raises(ConfigError, match=r"no reduction 'svd'; there are pca, leanvec"):
        recsys.export(trained, wrong, to="exact", reduce="svd:8")
    found = CliRunner().invoke(
        main, ["export", str(trained), "--to", "exact", "--reduce", "pca", "--out", str(wrong)]
    )
    assert (found.exit_code, wrong.exists()) == (2, False)
    assert "a name and a width, as in pca:32, got 'pca'" in found.output


def test_a_width_that_finds_too_little_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.retrieval.index.reduced.DEPTHS", (20,))
        with pytest.raises(UserError, match=r"pca:1 reaches recall@10 0\.\d+ with 20 candidates"):
            recsys.export(trained, tmp_path / "no", to="exact", reduce="pca:1", min_recall=0.99)
    assert not (tmp_path / "no").exists()
