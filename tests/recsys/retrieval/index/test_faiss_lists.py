"""Lists and codes: every geometry, exclusions behind the reach of a search, files faiss reads."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import pytest
import torch
from torch import Tensor

from recsys.core.errors import IntegrityError
from recsys.data.batch import Jagged
from recsys.layers.geometry import (
    Geometry,
    candidate_vectors,
    query_vectors_of,
    tower_width,
    vector_width,
)
from recsys.retrieval.index import faiss_lists
from recsys.retrieval.index.build import build_index, load_index
from recsys.retrieval.index.effort import Effort
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.faiss_lists import ListsBackend, ListsIndex, lists_for
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.recall import recall_against_exact
from recsys.retrieval.index.registry import BACKENDS
from recsys.retrieval.index.scann_tree import Scann

LISTS = [kind for kind, one in BACKENDS.items() if isinstance(one, ListsBackend)]
CODES = [kind for kind in LISTS if kind != "ivf"]
SCANN = pytest.param(
    "scann",
    marks=pytest.mark.skipif(importlib.util.find_spec("scann") is None, reason="no scann"),
)
NUM_ITEMS, WIDTH = 1500, 14


def world(geometry: Geometry, queries: int = 200) -> tuple[Tensor, Tensor]:
    """Items, of which some are long, and queries."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(NUM_ITEMS, tower_width(WIDTH, geometry), generator=generator) * 0.5
    asked = torch.randn(queries, WIDTH, generator=generator) * 0.5
    return candidate_vectors(raw, geometry), query_vectors_of(asked, geometry)


def request_of(kind: str, geometry: Geometry, min_recall: float = 0.95) -> IndexRequest:
    items, queries = world(geometry)
    return IndexRequest(items, geometry, queries, "space", "ids", kind, min_recall)


def index_of(kind: str, geometry: Geometry = "sphere") -> ListsIndex:
    backend = BACKENDS[kind]
    assert isinstance(backend, ListsBackend)
    return backend.index_of(world(geometry)[0], geometry)


@pytest.mark.parametrize("geometry", ["sphere", "biased_sphere", "dot", "ball"])
@pytest.mark.parametrize("kind", [*LISTS, SCANN])
def test_every_geometry_through_its_file(kind: str, geometry: Geometry, tmp_path: Path) -> None:
    request = request_of(kind, geometry)
    facts = build_index(tmp_path, request)
    index, items = load_index(
        lambda name: (tmp_path / name).read_bytes(), expected_space_id="space", source=tmp_path
    )
    wide = WIDTH if geometry == "ball" else vector_width(WIDTH, geometry)
    assert (facts["index_dim"], facts["index_metric"] == "l2") == (wide, geometry == "ball")
    assert recall_against_exact(index, request.queries, items, 10) >= 0.9
    hidden = Jagged(
        ExactVectors(items).search(request.queries, 7)[1].flatten(), torch.arange(201) * 7
    )
    scores, rows = index.search(request.queries, 10, hidden)
    for own, found in zip(hidden.values.view(-1, 7).tolist(), rows.tolist(), strict=True):
        assert not set(own) & set(found)
    by_hand = (request.queries.unsqueeze(1) * items[rows]).sum(2)
    torch.testing.assert_close(scores, by_hand, atol=2e-5, rtol=1e-5)
    wanted = ExactVectors(items).search(request.queries, 10, hidden)[1]
    assert float((wanted.unsqueeze(2) == rows.unsqueeze(1)).any(2).float().mean()) > 0.9


@pytest.mark.parametrize("kind", LISTS)
def test_faiss_alone_reads_the_file_and_is_asked_as_the_engine_is(
    kind: str, tmp_path: Path
) -> None:
    request = request_of(kind, "sphere")
    build_index(tmp_path, request)
    alone: Any = faiss.read_index(str(tmp_path / "index.faiss"))
    faiss.extract_index_ivf(alone).nprobe = lists_for(NUM_ITEMS)
    rows = alone.search(request.queries.numpy(), 10)[1]
    exact = ExactVectors(request.vectors).search(request.queries, 10)[1].numpy()
    assert (exact[:, :, None] == rows[:, None]).any(2).mean() > (0.95 if kind == "ivf" else 0.4)


@pytest.mark.parametrize("kind", CODES)
def test_re_ranking_finds_what_codes_confuse(kind: str) -> None:
    index, queries = index_of(kind), world("sphere")[1]
    everywhere = lists_for(NUM_ITEMS)
    found = []
    for rerank in (1, 8):
        index.effort = Effort(everywhere, rerank)
        found.append(recall_against_exact(index, queries, index.vectors, 10))
    assert found[0] < found[1]
    assert found[1] > 0.98
    assert index.held_bytes(Effort(1, 1)) < index.held_bytes(Effort(1, 2))
    assert index.held_bytes(Effort(1, 1)) < index.vectors.numel() * 4 + 8 * NUM_ITEMS


def test_more_lists_find_more_and_all_of_them_everything() -> None:
    index, queries = index_of("ivf"), world("sphere")[1]
    found = []
    for nprobe in (1, 8, lists_for(NUM_ITEMS)):
        index.effort = Effort(nprobe)
        found.append(recall_against_exact(index, queries, index.vectors, 10))
    assert found[0] < found[1] < found[2] == 1.0


def test_deep_searches_open_enough_lists() -> None:
    """At an effort for ten items a search for hundreds still sees several times as many."""
    index, queries = index_of("ivf"), world("sphere")[1]
    index.effort = Effort(1)
    assert recall_against_exact(index, queries, index.vectors, 150) > 0.9


@pytest.mark.parametrize("kind", ["ivf", "ivf_pq"])
def test_how_many_queries_go_at_once_changes_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, queries = index_of(kind, "ball"), world("ball")[1]
    index.effort = Effort(8, 4)
    scores, rows = index.search(queries, 10)
    monkeypatch.setattr(faiss_lists, "_CANDIDATES_AT_ONCE", 100)
    again = index.search(queries, 10)
    assert rows.tolist() == again[1].tolist()
    torch.testing.assert_close(scores, again[0])


@pytest.mark.parametrize("kind", ["flat", "sq8"])
def test_a_file_over_other_items_is_refused(kind: str, tmp_path: Path) -> None:
    request = request_of(kind, "sphere")
    facts = build_index(tmp_path, request)
    with pytest.raises(IntegrityError, match=r"index\.faiss: .*1500 x 14, the vectors are 1499 x"):
        BACKENDS[kind].open(lambda name: (tmp_path / name).read_bytes(), facts, request.vectors[1:])


def test_the_flat_file_is_exact_for_faiss(tmp_path: Path) -> None:
    request = request_of("flat", "ball")
    build_index(tmp_path, request)
    alone: Any = faiss.read_index(str(tmp_path / "index.faiss"))
    rows = alone.search(request.queries.numpy(), 10)[1]
    exact = ExactVectors(request.vectors).search(request.queries, 10)[1].numpy()
    assert (rows == exact).mean() > 0.999  # but for ties and rounding


def test_a_catalogue_smaller_than_its_codes(tmp_path: Path) -> None:
    items = torch.eye(5)
    for kind in LISTS:
        folder = tmp_path / kind
        folder.mkdir()
        request = replace(request_of(kind, "sphere"), vectors=items, queries=items)
        build_index(folder, request)
        index, _ = load_index(
            lambda name, folder=folder: (folder / name).read_bytes(),  # type: ignore[misc]
            expected_space_id="space",
            source=folder,
        )
        assert index.search(items, 1)[1].flatten().tolist() == list(range(5))


@pytest.mark.parametrize(("items", "lists"), [(1, 1), (39, 1), (1_500, 32), (1_000_000, 4096)])
def test_lists_grow_with_the_root_of_the_catalogue(items: int, lists: int) -> None:
    assert lists_for(items) == lists


def test_scann_says_where_it_comes_from() -> None:
    package = Scann().package
    assert (package.distribution, package.extra) == ("scann", "scann")
