"""What every backend promises: exclusions, short lists, ties, measured recall, files that open."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recsys.core.errors import ConfigError, IntegrityError, UserError
from recsys.data.batch import Jagged
from recsys.layers.geometry import candidate_vectors, neighbours_of
from recsys.retrieval.index.approximate import Floats, Metric
from recsys.retrieval.index.build import build_index, load_index
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.graph import GraphBackend, GraphIndex
from recsys.retrieval.index.protocol import Index, IndexRequest
from recsys.retrieval.index.recall import recall_against_exact
from recsys.retrieval.index.registry import BACKENDS, EXACT_UP_TO, kind_for, kinds_by_export
from recsys.retrieval.topk import exact_topk

NUM_ITEMS = 1500
ASKED_FOR = {"hnswlib", "scann"}
"""Kinds whose library an installation may lack, and whose tests then say so."""
DRAWS_ANEW = {"scann"}
"""Kinds of which two builds differ."""


def kinds(*classes: type) -> list[Any]:
    """Return the kinds of some classes; those of a library that is not there are skipped."""
    found = [kind for kind, one in BACKENDS.items() if isinstance(one, classes)]
    return [
        pytest.param(kind, marks=pytest.mark.skipif(is_absent(kind), reason=f"no {kind}"))
        for kind in found
    ]


def is_absent(kind: str) -> bool:
    return kind in ASKED_FOR and importlib.util.find_spec(kind) is None


GRAPHS = kinds(GraphBackend)


@pytest.fixture(scope="module")
def request_() -> IndexRequest:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(NUM_ITEMS, 16, generator=generator), dim=1)
    queries = F.normalize(torch.randn(300, 16, generator=generator) + 0.3, dim=1)
    return IndexRequest(vectors, "sphere", queries, "space-a", "ids", "exact", 0.95)


@pytest.fixture(scope="module", params=kinds(object))
def kind(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, request_: IndexRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backend's index of the request, as files."""
    path = tmp_path_factory.mktemp(kind)
    build_index(path, replace(request_, kind=kind))
    return path


@pytest.fixture(scope="module")
def index(folder: Path) -> Index:
    """The same, opened again."""
    return opened(folder)[0]


def opened(folder: Path, space: str = "space-a") -> tuple[Index, Tensor]:
    return load_index(reader(folder), expected_space_id=space, source=folder)


def reader(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def facts_of(folder: Path) -> Any:
    return json.loads((folder / "index.json").read_text())


def graph_of(kind: str) -> GraphBackend:
    backend = BACKENDS[kind]
    assert isinstance(backend, GraphBackend)
    return backend


def exclusions(count: int, each: int) -> Jagged:
    generator = torch.Generator().manual_seed(1)
    rows = torch.stack(
        [torch.randperm(NUM_ITEMS, generator=generator)[:each] for _ in range(count)]
    )
    return Jagged(rows.flatten(), torch.arange(count + 1) * each)


@pytest.mark.parametrize("each", [0, 7, 400])
def test_an_excluded_item_never_comes_back_and_most_others_do(
    kind: str, request_: IndexRequest, index: Index, each: int
) -> None:
    exclude = exclusions(300, each)
    scores, rows = index.search(request_.queries, 10, exclude)
    truth = ExactVectors(request_.vectors).search(request_.queries, 10, exclude)[1]
    for query in range(300):
        hidden = set(exclude.values[exclude.offsets[query] : exclude.offsets[query + 1]].tolist())
        assert not hidden & set(rows[query].tolist())
        assert len(set(rows[query].tolist())) == 10
    found = (truth.unsqueeze(2) == rows.unsqueeze(1)).any(2).float().mean()
    assert float(found) > (0.9 if kind in DRAWS_ANEW else 0.95)
    assert (scores.dtype, rows.dtype) == (torch.float32, torch.int64)
    assert bool((scores.diff(dim=1) <= 0).all())
    picked = (request_.queries.unsqueeze(1) * request_.vectors[rows]).sum(2)
    torch.testing.assert_close(scores, picked)


def test_a_query_with_few_items_left_gets_all_of_them_and_no_padding_item(
    request_: IndexRequest, index: Index
) -> None:
    exclude = exclusions(5, NUM_ITEMS - 3)
    scores, rows = index.search(request_.queries[:5], 10, exclude)
    exact = ExactVectors(request_.vectors).search(request_.queries[:5], 10, exclude)
    assert rows.tolist() == exact[1].tolist()
    assert (rows[:, 3:] == -1).all()
    assert (scores[:, 3:] == -torch.inf).all()


def test_k_beyond_the_catalogue(request_: IndexRequest, index: Index) -> None:
    for queries in (request_.queries[:3], request_.queries[:1]):
        rows = index.search(queries, NUM_ITEMS + 5)[1]
        for line in rows.tolist():
            assert sorted(line[:NUM_ITEMS]) == list(range(NUM_ITEMS))
            assert line[NUM_ITEMS:] == [-1] * 5


def test_one_query_is_answered_as_among_others_and_none_as_none(
    request_: IndexRequest, index: Index
) -> None:
    scores, rows = index.search(request_.queries[:4], 10)
    alone = index.search(request_.queries[2:3], 10)
    assert rows[2:3].tolist() == alone[1].tolist()
    torch.testing.assert_close(alone[0], scores[2:3])
    none = index.search(request_.queries[:0], 10)
    assert (none[0].shape, none[1].shape) == ((0, 10), (0, 10))


def test_ties_go_to_the_smaller_row(kind: str, tmp_path: Path) -> None:
    vectors = torch.eye(4).repeat(3, 1)  # each vector three times, scores without rounding
    queries = torch.tensor([[1.0, 0.5, 0.25, 0.0]])
    build_index(tmp_path, IndexRequest(vectors, "sphere", queries, "space-a", "ids", kind, 0.0))
    rows = opened(tmp_path)[0].search(queries, 12)[1]
    assert rows.tolist() == [[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]]


def test_what_is_written_is_measured_and_opens(
    request_: IndexRequest, kind: str, folder: Path
) -> None:
    facts = facts_of(folder)
    index, vectors = opened(folder)
    assert torch.equal(vectors, request_.vectors)
    assert (len(index), index.dim) == (NUM_ITEMS, 16)
    measured = recall_against_exact(index, request_.queries, vectors, 10)
    assert facts["recall_at_10"] == pytest.approx(measured, abs=0.05)
    assert facts["recall_at_10"] >= 0.95
    assert (facts["n"], facts["dim"], facts["kind"]) == (NUM_ITEMS, 16, kind)
    with pytest.raises(IntegrityError, match="space space-a, the model answers in space space-b"):
        opened(folder, "space-b")


def test_building_twice_with_one_thread_gives_the_same_bytes(
    request_: IndexRequest, kind: str, folder: Path, tmp_path: Path
) -> None:
    if kind in DRAWS_ANEW:
        pytest.skip("its library draws anew")
    build_index(tmp_path, replace(request_, kind=kind))
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        if name == "index.json":
            again, before = (facts_of(one) for one in (tmp_path, folder))
            again.pop("build_cpu_seconds", None), before.pop("build_cpu_seconds", None)
            assert again == before
        else:
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize("kind", GRAPHS)
def test_what_the_graph_does_not_reach_is_answered_exactly(
    request_: IndexRequest, kind: str
) -> None:
    short = graph_of(kind).index_of(request_.vectors[:8], "sphere").graph
    blind = GraphIndex(short, request_.vectors, 64)
    exclude = exclusions(20, 400)
    found = blind.search(request_.queries[:20], 10, exclude)
    exact = ExactVectors(request_.vectors).search(request_.queries[:20], 10, exclude)
    assert found[1].tolist() == exact[1].tolist()
    assert torch.equal(found[0], exact[0])


@pytest.mark.parametrize("kind", GRAPHS)
def test_an_index_that_misses_too_much_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.retrieval.index.graph._BREADTHS", (10,))
    name = graph_of(kind).library.name
    with pytest.raises(UserError, match=rf"by {name} reaches recall@10 0\..* 1\.0 is wanted"):
        build_index(tmp_path, hard_to_search(kind, min_recall=1.0))
    with pytest.raises(ConfigError, match=r"min_recall is a share from 0 to 1, got 1\.01"):
        hard_to_search(kind, min_recall=1.01)


def hard_to_search(kind: str, min_recall: float) -> IndexRequest:
    """Many dimensions and few links: the narrowest search misses some, and misses less at 100."""
    generator = torch.Generator().manual_seed(2)
    vectors = F.normalize(torch.randn(3000, 64, generator=generator), dim=1)
    queries = F.normalize(torch.randn(1000, 64, generator=generator) + 0.3, dim=1)
    return IndexRequest(vectors, "sphere", queries, "space-a", "ids", kind, min_recall)


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_facts_are_measured_at_the_k_they_name(kind: str, tmp_path: Path) -> None:
    request = hard_to_search(kind, min_recall=0.0)
    facts = build_index(tmp_path, request)
    index = opened(tmp_path)[0]
    for k in (10, 100):
        measured = recall_against_exact(index, request.queries, request.vectors, k)
        assert facts[f"recall_at_{k}"] == pytest.approx(measured, abs=1e-6)
    assert facts["recall_at_10"] != facts["recall_at_100"]
    with pytest.raises(IntegrityError, match="a graph of 3000 x 64, the vectors are 2999 x 64"):
        BACKENDS[kind].open(reader(tmp_path), facts, request.vectors[1:])


@pytest.mark.parametrize("size", [0.3, 1.5])
@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_in_the_ball_follows_distances(kind: str, size: float, tmp_path: Path) -> None:
    """Near the middle and on the surface; through its file; scores as exact search has them."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(NUM_ITEMS, 16, generator=generator) * size / 4
    vectors = candidate_vectors(raw, "ball")
    noise = torch.randn(300, 16, generator=generator) * size / 8
    queries = neighbours_of(vectors[:300], "ball", noise)
    request = IndexRequest(vectors, "ball", queries, "space-a", "ids", kind, 0.95)
    facts = build_index(tmp_path, request)
    assert (facts["ef"], facts["graph_metric"], facts["normalised"]) == (64, "l2", False)
    index, stored = opened(tmp_path)
    assert recall_against_exact(index, queries, stored, 10) > 0.98
    scores, rows = index.search(queries, 10, exclusions(300, 7))
    by_hand = (queries.unsqueeze(1) * vectors[rows]).sum(2)
    torch.testing.assert_close(scores, by_hand, atol=1e-5, rtol=0)
    with pytest.raises(IntegrityError, match=r"a graph of 1500 x 16, the vectors are 1500 x 18"):
        BACKENDS[kind].open(reader(tmp_path), {**facts, "geometry": "sphere"}, vectors)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_a_broader_walk_finds_more(kind: str, metric: Metric) -> None:
    """Of scattered points a walk that keeps 10 candidates misses many that one of 400 finds."""
    drawn = np.random.default_rng(0).standard_normal((3000, 48)).astype(np.float32)
    points, queries = drawn[:2900], drawn[2900:]
    graph = graph_of(kind).library.build(points, metric, 1)
    scores = queries @ points.T
    if metric == "l2":
        scores = scores - (points**2).sum(1) / 2
    best = np.argsort(-scores)[:, :10]
    found = {}
    for breadth in (10, 400):
        _, rows = graph.search(queries, 10, breadth, 1)
        found[breadth] = float((rows[:, :, None] == best[:, None]).any(2).mean())
    assert found[10] < 0.9 < 0.95 < found[400]


class Watched:
    """A library whose graphs find everything and keep what they were asked."""

    name = module = distribution = "json"
    extra = None

    def __init__(self) -> None:
        self.built: list[tuple[str, int]] = []
        self.asked: list[tuple[int, int]] = []

    def build(self, points: Floats, metric: Metric, threads: int) -> "Watched":
        self.points = torch.from_numpy(points)
        self.built.append((metric, threads))
        return self

    def read(self, data: bytes, metric: Metric) -> "Watched":
        return self

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.points), self.points.shape[1]

    def search(
        self, queries: Floats, depth: int, breadth: int, threads: int
    ) -> tuple[Floats, NDArray[np.int64]]:
        self.asked.append((depth, breadth))
        found = ExactVectors(self.points).search(torch.from_numpy(queries), depth)
        return found[0].numpy(), found[1].numpy()

    def to_bytes(self) -> bytes:
        return b"watched"


def test_a_library_is_told_threads_metric_depth_and_breadth(
    request_: IndexRequest, tmp_path: Path
) -> None:
    library = Watched()
    backend = GraphBackend(library)
    facts = backend.build(tmp_path, replace(request_, threads=3))
    assert (facts["ef"], facts["recall_at_10"]) == (64, 1.0)
    assert (tmp_path / "index.json").read_bytes() == b"watched"  # the library's name
    backend.index_of(candidate_vectors(request_.vectors, "ball"), "ball")
    assert library.built == [("inner_product", 3), ("l2", 1)]
    library.build(request_.vectors.numpy(), "inner_product", 1)
    library.asked.clear()
    index = GraphIndex(library, request_.vectors, 64)
    index.search(request_.queries[:2], 10)
    index.search(request_.queries[:2], 40)
    assert library.asked == [(10, 64), (40, 80)]  # never below twice the depth


def test_small_catalogues_are_exact_by_default(request_: IndexRequest, tmp_path: Path) -> None:
    facts = build_index(tmp_path, replace(request_, kind="auto"))
    assert facts["kind"] == "exact"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "vectors.safetensors"]
    assert facts_of(tmp_path) == facts
    most = EXACT_UP_TO // 64
    assert (kind_for("auto", most, 64), kind_for("auto", most + 1, 64)) == ("exact", "ivf")
    assert (kind_for("auto", 4 * most, 16), kind_for("auto", most, 65)) == ("exact", "ivf")
    assert kind_for("usearch", 3, 64) == "usearch"


def test_recall_is_one_for_exact_and_counts_misses(request_: IndexRequest) -> None:
    exact = ExactVectors(request_.vectors)
    assert recall_against_exact(exact, request_.queries, request_.vectors, 10) == 1.0
    blind = ExactVectors(request_.vectors[: NUM_ITEMS // 2])
    recall = recall_against_exact(blind, request_.queries, request_.vectors, 10)
    assert 0.35 < recall < 0.65


def test_any_of_items_with_one_vector_is_found(request_: IndexRequest) -> None:
    """Each vector is that of ten items: an index that finds other ones of the ten misses none."""

    class Last(ExactVectors):
        def search(self, queries: Tensor, k: int, exclude: Jagged | None = None) -> Any:
            scores, rows = exact_topk(queries, self.vectors[:100], -(-k // 10))
            copies = rows.unsqueeze(2) + 100 * torch.arange(9, -1, -1)
            return scores.repeat_interleave(10, 1)[:, :k], copies.flatten(1)[:, :k]

    vectors = request_.vectors[:100].repeat(10, 1)
    index = Last(vectors)
    assert recall_against_exact(index, request_.queries, vectors, 10) == 1.0
    assert recall_against_exact(index, request_.queries, vectors, 15) == 1.0
    other = ExactVectors(-vectors)
    assert recall_against_exact(other, request_.queries, vectors, 10) == 0.0


def test_files_that_do_not_belong_together_are_refused(
    request_: IndexRequest, tmp_path: Path
) -> None:
    facts = build_index(tmp_path, request_)
    (tmp_path / "index.json").write_text(json.dumps({**facts, "n": 7}))
    with pytest.raises(IntegrityError, match=r"index\.json says 7 x 16, the vectors are \(1500, 1"):
        opened(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({**facts, "kind": "vespa"}))
    with pytest.raises(IntegrityError, match="kind 'vespa', this engine has exact, flat, hnsw"):
        opened(tmp_path)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.retrieval.index import approximate
    from recsys.retrieval.index.registry import require

    require("auto"), require("exact"), require("hnsw"), require("usearch")
    monkeypatch.setattr(approximate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"usearch, which is not .*install 'recsys-engine\[ann\]"):
        require("usearch")
    with pytest.raises(ConfigError, match=r"needs the package faiss-cpu, .* pip install faiss-cpu"):
        require("hnsw")


def test_each_backend_has_a_name_of_its_own_for_export() -> None:
    assert kinds_by_export() == {
        **{kind: kind for kind in BACKENDS if kind != "hnsw"},
        "faiss": "hnsw",
    }
