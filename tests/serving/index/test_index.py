"""Indexes: approximate next to exact, exclusions, short lists, spaces that must match."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.bundle.directory import Bundle, write_bundle
from recsys.core.errors import IntegrityError, UserError
from recsys.data.batch import Jagged
from recsys.layers.geometry import Geometry, candidate_vectors, neighbours_of
from recsys.retrieval.index import ExactVectors
from recsys.serving.index.build import build_index, load_index, recall_against_exact
from recsys.serving.index.faiss_hnsw import HnswIndex

NUM_ITEMS = 1500


@dataclass(frozen=True)
class Request:
    vectors: Tensor
    queries: Tensor
    space_id: str = "space-a"
    item_ids_sha256: str = "ids"
    kind: str = "hnsw"
    min_recall: float = 0.95
    geometry: Geometry = "sphere"


@pytest.fixture(scope="module")
def request_() -> Request:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(NUM_ITEMS, 16, generator=generator), dim=1)
    queries = F.normalize(torch.randn(300, 16, generator=generator) + 0.3, dim=1)
    return Request(vectors, queries)


@pytest.fixture(scope="module")
def hnsw(request_: Request) -> HnswIndex:
    return HnswIndex.build(request_.vectors)


def exclusions(count: int, each: int) -> Jagged:
    generator = torch.Generator().manual_seed(1)
    rows = torch.stack(
        [torch.randperm(NUM_ITEMS, generator=generator)[:each] for _ in range(count)]
    )
    return Jagged(rows.flatten(), torch.arange(count + 1) * each)


@pytest.mark.parametrize("each", [0, 7, 400])
def test_hnsw_never_returns_an_excluded_item_and_finds_most(
    request_: Request, hnsw: HnswIndex, each: int
) -> None:
    exclude = exclusions(300, each)
    scores, rows = hnsw.search(request_.queries, 10, exclude)
    truth = ExactVectors(request_.vectors).search(request_.queries, 10, exclude)[1]
    for query in range(300):
        hidden = set(exclude.values[exclude.offsets[query] : exclude.offsets[query + 1]].tolist())
        assert not hidden & set(rows[query].tolist())
        assert len(set(rows[query].tolist())) == 10
    found = (truth.unsqueeze(2) == rows.unsqueeze(1)).any(2).float().mean()
    assert float(found) > 0.95
    assert bool((scores.diff(dim=1) <= 0).all())
    picked = (request_.queries.unsqueeze(1) * request_.vectors[rows]).sum(2)
    torch.testing.assert_close(scores, picked)


def test_a_query_with_few_items_left_gets_all_of_them_and_no_padding_item(
    request_: Request, hnsw: HnswIndex
) -> None:
    exclude = exclusions(5, NUM_ITEMS - 3)
    scores, rows = hnsw.search(request_.queries[:5], 10, exclude)
    exact = ExactVectors(request_.vectors).search(request_.queries[:5], 10, exclude)
    assert rows.tolist() == exact[1].tolist()
    assert (rows[:, 3:] == -1).all()
    assert (scores[:, 3:] == -torch.inf).all()


def test_what_the_graph_does_not_reach_is_answered_exactly(request_: Request) -> None:
    blind = HnswIndex(HnswIndex.build(request_.vectors[:8]).graph, request_.vectors, 64)
    exclude = exclusions(20, 400)
    found = blind.search(request_.queries[:20], 10, exclude)
    exact = ExactVectors(request_.vectors).search(request_.queries[:20], 10, exclude)
    assert found[1].tolist() == exact[1].tolist()
    assert torch.equal(found[0], exact[0])


def test_ties_go_to_the_smaller_row() -> None:
    vectors = torch.eye(4).repeat(3, 1)  # each vector three times, scores without rounding
    queries = torch.tensor([[1.0, 0.5, 0.25, 0.0]])
    rows = HnswIndex.build(vectors).search(queries, 12)[1]
    assert rows.tolist() == [[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]]


def test_k_beyond_the_catalogue(request_: Request, hnsw: HnswIndex) -> None:
    rows = hnsw.search(request_.queries[:3], NUM_ITEMS + 5)[1]
    for line in rows.tolist():
        assert sorted(line[:NUM_ITEMS]) == list(range(NUM_ITEMS))
        assert line[NUM_ITEMS:] == [-1] * 5


def test_what_is_written_is_measured_and_loads(request_: Request, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "index").mkdir()
        build_index(folder / "index", request_)

    bundle = Bundle.open(write_bundle(tmp_path, write, facts={}))
    facts = bundle.json("index/index.json")
    index, vectors = load_index(bundle, expected_space_id="space-a")
    assert not index.is_exact()
    assert torch.equal(vectors, request_.vectors)
    measured = recall_against_exact(index, request_.queries, vectors, 10)
    assert facts["recall_at_10"] == pytest.approx(measured, abs=0.05)
    assert facts["recall_at_10"] >= 0.95
    assert (facts["n"], facts["dim"], facts["kind"]) == (NUM_ITEMS, 16, "hnsw")
    with pytest.raises(IntegrityError, match="space space-a, the model answers in space space-b"):
        load_index(bundle, expected_space_id="space-b")


def test_small_catalogues_are_exact_by_default(request_: Request, tmp_path: Path) -> None:
    facts = build_index(tmp_path, replace(request_, kind="auto"))
    assert facts["kind"] == "exact"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "vectors.safetensors"]
    assert json.loads((tmp_path / "index.json").read_text()) == facts


def test_an_index_that_misses_too_much_is_refused(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reaches recall@10 .* 1\.01 is wanted"):
        build_index(tmp_path, replace(request_, min_recall=1.01))


def test_recall_is_one_for_exact_and_counts_misses(request_: Request) -> None:
    exact = ExactVectors(request_.vectors)
    assert recall_against_exact(exact, request_.queries, request_.vectors, 10) == 1.0
    blind = ExactVectors(request_.vectors[: NUM_ITEMS // 2])
    recall = recall_against_exact(blind, request_.queries, request_.vectors, 10)
    assert 0.35 < recall < 0.65


def test_the_facts_are_measured_at_the_k_they_name(tmp_path: Path) -> None:
    """Many dimensions and few links: the narrowest search misses some, and misses less at 100."""
    generator = torch.Generator().manual_seed(2)
    vectors = F.normalize(torch.randn(5000, 64, generator=generator), dim=1)
    queries = F.normalize(torch.randn(1000, 64, generator=generator) + 0.3, dim=1)
    facts = build_index(tmp_path, Request(vectors, queries, min_recall=0.0))
    data = (tmp_path / "index.faiss").read_bytes()
    index = HnswIndex.from_bytes(data, vectors, facts["ef"])
    for k in (10, 100):
        measured = recall_against_exact(index, queries, vectors, k)
        assert facts[f"recall_at_{k}"] == pytest.approx(measured, abs=1e-6)
    assert facts["recall_at_10"] != facts["recall_at_100"]
    with pytest.raises(IntegrityError, match="a graph of 5000 x 64, the vectors are 4999 x 64"):
        HnswIndex.from_bytes(data, vectors[1:], facts["ef"])


@pytest.mark.parametrize("size", [0.3, 1.5])
def test_a_graph_in_the_ball_follows_distances(tmp_path: Path, size: float) -> None:
    """Near the middle and on the surface; through its file; scores as exact search has them."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(NUM_ITEMS, 16, generator=generator) * size / 4
    vectors = candidate_vectors(raw, "ball")
    noise = torch.randn(300, 16, generator=generator) * size / 8
    queries = neighbours_of(vectors[:300], "ball", noise)
    request = Request(vectors, queries, geometry="ball")

    def write(folder: Path) -> None:
        (folder / "index").mkdir()
        facts = build_index(folder / "index", request)
        assert (facts["ef"], facts["graph_metric"], facts["normalised"]) == (64, "l2", False)

    bundle = Bundle.open(write_bundle(tmp_path, write, facts={}))
    index, stored = load_index(bundle, expected_space_id="space-a")
    assert isinstance(index, HnswIndex)
    assert recall_against_exact(index, queries, stored, 10) > 0.98
    scores, rows = index.search(queries, 10, exclusions(300, 7))
    by_hand = (queries.unsqueeze(1) * vectors[rows]).sum(2)
    torch.testing.assert_close(scores, by_hand, atol=1e-5, rtol=0)
    alone = HnswIndex.build(vectors, geometry="ball")
    with pytest.raises(IntegrityError, match=r"a graph of 1500 x 16, the vectors are 1500 x 18"):
        HnswIndex.from_bytes(bundle.read("index/index.faiss"), vectors, 64)
    assert len(alone) == NUM_ITEMS
