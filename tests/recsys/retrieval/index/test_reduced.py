"""Search among shorter vectors, put in order by the whole ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.core.errors import ConfigError, IntegrityError, UserError
from recsys.data.batch import Jagged
from recsys.layers.geometry import Geometry, candidate_vectors, neighbours_of
from recsys.retrieval.index.build import load_index
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.recall import recall_against_exact
from recsys.retrieval.index.reduced import Reduced, ReductionSize, build_reduced, load_reduced
from recsys.retrieval.index.registry import BACKENDS
from recsys.retrieval.reduction import reduction_of, sphered

NUM_ITEMS = 800
ASKED_FOR = {"hnswlib", "scann"}
"""Kinds whose library an installation may lack: they are tested where it is there."""
SIZE = ReductionSize("leanvec", 8)


def spread(num: int, seed: int) -> Tensor:
    """Return points (num, 24), most of whose spread is along a few directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 24, generator=generator) * torch.logspace(0, -1.5, 24)


def request_of(geometry: Geometry = "sphere", kind: str = "hnsw") -> IndexRequest:
    raw = spread(NUM_ITEMS, 0)
    if geometry == "dot":
        raw = torch.cat([raw, torch.rand(NUM_ITEMS, 1)], 1)
    vectors = candidate_vectors(raw, geometry)
    queries = neighbours_of(vectors[:200], geometry, 0.5 * spread(200, 1))
    return IndexRequest(vectors, geometry, queries.repeat(5, 1), "space-a", "ids", kind, 0.95)


def learnt_from(request: IndexRequest) -> Tensor:
    return neighbours_of(request.vectors[200:600], request.geometry, 0.5 * spread(400, 2))


def reader(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def opened(folder: Path, space: str = "space-a") -> Reduced:
    return load_reduced(reader(folder), expected_space_id=space, source=folder)


@pytest.fixture(scope="module")
def request_() -> IndexRequest:
    return request_of()


INSTALLED = [kind for kind in BACKENDS if kind not in ASKED_FOR or find_spec(kind) is not None]


@pytest.fixture(scope="module", params=INSTALLED)
def folder(
    request: pytest.FixtureRequest, request_: IndexRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of each kind over short vectors, built and written."""
    path = tmp_path_factory.mktemp(request.param)
    build_reduced(path, replace(request_, kind=request.param), SIZE, learnt_from(request_))
    return path


def exclusions(count: int, each: int) -> Jagged:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randperm(NUM_ITEMS, generator=generator)[:each] for _ in range(count)]
    return Jagged(torch.cat(rows), torch.arange(count + 1) * each)


@pytest.mark.parametrize("each", [0, 7, 300])
def test_scores_are_exact_and_nothing_excluded_comes_back(
    request_: IndexRequest, folder: Path, each: int
) -> None:
    index, queries, exclude = opened(folder), request_.queries[:100], exclusions(100, each)
    scores, rows = index.search(queries, 10, exclude)
    truth = ExactVectors(request_.vectors).search(queries, 10, exclude)[1]
    hidden = [set(part.tolist()) for part in exclude.values.split(each or 1)]
    for query, found in enumerate(rows.tolist()):
        assert len(set(found)) == 10
        assert not each or not hidden[query] & set(found)
    assert float((truth.unsqueeze(2) == rows.unsqueeze(1)).any(2).float().mean()) > 0.93
    torch.testing.assert_close(scores, (queries.unsqueeze(1) * request_.vectors[rows]).sum(2))
    assert bool((scores.diff(dim=1) <= 0).all())
    assert (scores.dtype, rows.dtype) == (torch.float32, torch.int64)


def test_lists_are_short_only_where_items_are(request_: IndexRequest, folder: Path) -> None:
    index, queries, exclude = opened(folder), request_.queries[:5], exclusions(5, NUM_ITEMS - 3)
    scores, rows = index.search(queries, 10, exclude)
    assert rows.tolist() == ExactVectors(request_.vectors).search(queries, 10, exclude)[1].tolist()
    assert (scores[:, 3:] == -torch.inf).all()
    everything = index.search(queries, NUM_ITEMS + 5)[1]
    exact = ExactVectors(request_.vectors).search(queries, NUM_ITEMS + 5)[1]
    assert everything.tolist() == exact.tolist()
    assert index.search(queries[:0], 10)[1].shape == (0, 10)
    assert (len(index), index.dim) == (NUM_ITEMS, 24)


def test_what_is_written_is_measured(request_: IndexRequest, folder: Path) -> None:
    index = opened(folder)
    facts = json.loads((folder / "index.json").read_text())
    about = facts["reduction"]
    assert (facts["dim"], about["whole_dim"], about["solver"]) == (8, 24, "leanvec")
    assert (facts["geometry"], facts["normalised"]) == ("biased_sphere", False)
    assert (about["depth"], about["learnt_from_queries"]) == (index.depth, 400)
    for k in (10, 100):
        measured = recall_against_exact(index, request_.queries, request_.vectors, k)
        assert facts[f"recall_at_{k}"] == pytest.approx(measured, abs=1e-6)
    assert facts["recall_at_10"] >= 0.95
    # One step less would not have been enough.
    index.depth = 20 if index.depth == 50 else index.depth // 2
    below = recall_against_exact(index, request_.queries, request_.vectors, 10)
    assert index.depth == 10 or below < 0.95
    # The index beside it is one over short vectors, for whoever asks it without the engine.
    inner, short = load_index(reader(folder), expected_space_id="space-a", source=folder)
    torch.testing.assert_close(short, index.reduction.of_items(request_.vectors))
    assert (len(inner), inner.dim) == (NUM_ITEMS, 8)


def test_more_candidates_find_more_and_all_find_all() -> None:
    items, queries = F.normalize(torch.randn(500, 24), dim=1), torch.randn(50, 24)
    reduction = reduction_of(sphered, items, queries, 4)
    short = ExactVectors(reduction.of_items(items))
    found = [
        recall_against_exact(Reduced(short, reduction, items, depth), queries, items, 10)
        for depth in (20, 100, 500)
    ]
    assert found[0] < found[1] < found[2] == 1.0


def test_depth_is_never_below_twice_the_list() -> None:
    class Watched(ExactVectors):
        def search(self, queries: Tensor, k: int, exclude: Jagged | None = None) -> Any:
            asked.append(k)
            return super().search(queries, k, exclude)

    asked: list[int] = []
    items, queries = torch.randn(500, 24), torch.randn(3, 24)
    reduction = reduction_of(sphered, items, queries, 4)
    index = Reduced(Watched(reduction.of_items(items)), reduction, items, 50)
    for k in (10, 40, 400):
        index.search(queries, k)
    assert asked == [50, 80, 500]


def test_ties_go_to_the_smaller_row() -> None:
    vectors = torch.eye(4).repeat(3, 1)
    queries = torch.tensor([[1.0, 0.5, 0.25, 0.0]])
    reduction = reduction_of(sphered, vectors, queries, 2)
    index = Reduced(ExactVectors(reduction.of_items(vectors)), reduction, vectors, 12)
    assert index.search(queries, 12)[1].tolist() == [[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]]


@pytest.mark.parametrize("geometry", ["dot", "ball"])
def test_any_geometry_is_searched_by_products(geometry: Geometry, tmp_path: Path) -> None:
    request = request_of(geometry)
    facts = build_reduced(tmp_path, request, ReductionSize("pca", 12), learnt_from(request))
    assert facts["recall_at_10"] >= 0.95
    assert facts["graph_metric"] == "inner_product"
    queries = request.queries[:20]
    scores, rows = opened(tmp_path).search(queries, 5)
    torch.testing.assert_close(scores, (queries.unsqueeze(1) * request.vectors[rows]).sum(2))


def test_too_short_vectors_are_refused(request_: IndexRequest, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(NUM_ITEMS * 4, 24, generator=generator), dim=1)
    scattered = replace(request_, vectors=vectors, kind="exact", min_recall=0.999)
    with pytest.raises(UserError, match=r"pca:2 reaches recall@10 0\.\d+ with 800 .* than 2, or"):
        build_reduced(tmp_path, scattered, ReductionSize("pca", 2), vectors[:50])
    with pytest.raises(ConfigError, match=r"pca:24 is no shorter .* width 24: name a width below"):
        build_reduced(tmp_path, request_, ReductionSize("pca", 24), vectors[:50])


def test_files_that_do_not_belong_together_are_refused(
    request_: IndexRequest, tmp_path: Path
) -> None:
    build_reduced(tmp_path, replace(request_, kind="exact"), SIZE, learnt_from(request_))
    with pytest.raises(IntegrityError, match="space space-a, the model answers in space space-b"):
        opened(tmp_path, "space-b")
    facts = json.loads((tmp_path / "index.json").read_text())
    changed = {**facts, "reduction": {**facts["reduction"], "whole_dim": 7}}
    (tmp_path / "index.json").write_text(json.dumps(changed))
    with pytest.raises(IntegrityError, match=r"says 7 numbers a vector, 8 of them kept, of 800"):
        opened(tmp_path)
    facts.pop("reduction")
    (tmp_path / "index.json").write_text(json.dumps(facts))
    with pytest.raises(IntegrityError, match=r"index\.json names no reduction"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "leanvek:8",
            r"no reduction 'leanvek' \(did you mean 'leanvec'\?\); there are pca, leanvec",
        ),
        ("pca", "a name and a width, as in pca:32, got 'pca'"),
        ("pca:0", "a name and a width, as in pca:32, got 'pca:0'"),
        ("pca:-3", "got 'pca:-3'"),
        ("pca:8.0", "got 'pca:8.0'"),
    ],
)
def test_what_names_no_reduction_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReductionSize.of(text)
    assert ReductionSize.of("leanvec:32") == ReductionSize("leanvec", 32)
