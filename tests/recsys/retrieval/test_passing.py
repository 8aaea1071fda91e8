"""Search among the items that pass, beside scoring everything, leaving out and sorting."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval import among
from recsys.retrieval.among import Among
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.graph import FilteredGraphIndex, GraphBackend
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.index.registry import BACKENDS
from recsys.retrieval.passing import Passing
from recsys.retrieval.recommend import best_items

GRAPHS = [
    kind
    for kind, one in BACKENDS.items()
    if isinstance(one, GraphBackend) and find_spec(one.library.module) is not None
]
ITEMS, QUERIES = 41, 7
SEEDS = st.integers(0, 2**31)


def rows_of(rng: np.random.Generator, *, empty: float, weighed: bool = False) -> Jagged:
    """Draw distinct items for each query, of some queries none."""
    drawn = [
        np.sort(rng.choice(ITEMS, int(rng.integers(0, ITEMS)), replace=False))
        if rng.random() > empty
        else np.zeros(0, np.int64)
        for _ in range(QUERIES)
    ]
    rows = Jagged.of_lengths(np.concatenate(drawn), np.array([len(one) for one in drawn]))
    if not weighed:
        return rows
    weights = torch.from_numpy(rng.normal(0, 3, len(rows.values)).astype(np.float32))
    return Jagged(rows.values, rows.offsets, weights)


def passing_of(rng: np.random.Generator, share: float) -> tuple[Passing, NDArray[np.bool_]]:
    """Return three sets, blocked, limited and seen items, and what passes by plain sets, (Q, N)."""
    masks = rng.random((3, ITEMS)) < share
    set_of = rng.integers(0, 3, QUERIES)
    blocked, allowed = rows_of(rng, empty=0.5), rows_of(rng, empty=0.3)
    seen = rows_of(rng, empty=0.5)
    limited = torch.from_numpy(rng.random(QUERIES) < 0.4)
    plain = np.zeros((QUERIES, ITEMS), bool)
    for query in range(QUERIES):
        allowed_here = set(np.flatnonzero(masks[set_of[query]]).tolist())
        if limited[query]:
            allowed_here &= set(allowed.take(torch.tensor([query])).values.tolist())
        for one in (blocked, seen):
            allowed_here -= set(one.take(torch.tensor([query])).values.tolist())
        plain[query, sorted(allowed_here)] = True
    free = Passing.of(masks, set_of)
    return (
        Passing(ITEMS, free.sets, free.set_of, blocked, allowed, limited, seen),
        plain,
    )


def wanted_scores(
    items: Tensor, queries: Tensor, gains: Jagged | None, passes: NDArray[np.bool_]
) -> Tensor:
    """Score everything, (Q, N); -inf for what does not pass."""
    wanted = (queries @ items.T).amax(1)
    if gains is not None:
        wanted[gains.owners(), gains.values] += gains.weights
    return wanted.masked_fill(torch.from_numpy(~passes), -torch.inf)


def check(found: tuple[Tensor, Tensor], wanted: Tensor, k: int) -> None:
    """Compare with sorting `wanted` (Q, N)."""
    scores, rows = found
    for query, line in enumerate(wanted):
        best = line.sort(descending=True).values[:k]
        best = best[best > -torch.inf]
        there = rows[query] >= 0
        assert there.sum() == len(best)
        assert there[: len(best)].all()
        torch.testing.assert_close(scores[query][there], best)
        torch.testing.assert_close(line[rows[query][there]], best)
        assert len(set(rows[query][there].tolist())) == len(best)


def world(seed: int, interests: int) -> tuple[np.random.Generator, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    items = torch.from_numpy(rng.normal(0, 1, (ITEMS, 4)).astype(np.float32))
    queries = torch.from_numpy(rng.normal(0, 1, (QUERIES, interests, 4)).astype(np.float32))
    return rng, items, queries


@given(SEEDS, st.integers(1, 50), st.integers(1, 2), st.booleans(), st.sampled_from([0, 0.2, 0.9]))
def test_lists_are_those_of_scoring_all_and_leaving_out(
    seed: int, k: int, interests: int, gain: bool, share: float
) -> None:
    rng, items, queries = world(seed, interests)
    passing, plain = passing_of(rng, share)
    gains = rows_of(rng, empty=0.2, weighed=True) if gain else None
    asked = queries[:, 0] if interests == 1 else queries
    found = best_items(ExactVectors(items), items, asked, gains, k=k, exclude=passing)
    check(found, wanted_scores(items, queries, gains, plain), k)
    assert (passing.masks() == plain).all()
    with_seen = plain.sum(1)
    assert (passing.hiding(None).counts() >= with_seen).all()
    assert (passing.hiding(None).counts() == passing.hiding(None).masks().sum(1)).all()


@pytest.mark.parametrize("kind", GRAPHS)
@given(seed=SEEDS, gain=st.booleans(), walk=st.sampled_from([0, 10**9]))
def test_an_index_that_is_asked_for_more_finds_the_same(
    kind: str, seed: int, gain: bool, walk: int
) -> None:
    """With so few items a walk through the graph meets them all."""
    rng, items, queries = world(seed, 1)
    backend = BACKENDS[kind]
    assert isinstance(backend, GraphBackend)
    index = backend.index_of(items, "sphere")
    passing, plain = passing_of(rng, 0.6)
    gains = rows_of(rng, empty=0.2, weighed=True) if gain else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(among, "WALK", walk)
        found = best_items(index, items, queries[:, 0], gains, k=6, exclude=passing)
    check(found, wanted_scores(items, queries, gains, plain), 6)


class Recorded:
    """A graph that notes how wide its filtered walks are."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.breadths = graph, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graph, name)

    def search_passing(
        self, queries: Any, depth: int, breadth: int, threads: int, passes: Any
    ) -> Any:
        self.breadths.append(breadth)
        return self.graph.search_passing(queries, depth, breadth, threads, passes)


def test_a_filtered_walk_is_the_wider_the_fewer_items_pass() -> None:
    backend, items = BACKENDS["hnsw"], torch.randn(1000, 4)
    assert isinstance(backend, GraphBackend)
    index = backend.index_of(items, "sphere")
    assert isinstance(index, FilteredGraphIndex)
    graph = Recorded(index.graph)
    breadth, index.graph = index.effort.breadth, graph
    for passing, times in ((500, 2), (125, 8), (5, 0)):
        wanted = breadth * times or len(items)  # of five, all items are walked through
        passes = torch.arange(1000) < passing
        rows = index.search_passing(items[:3], 5, passes)[1]
        assert (rows < passing).all()
        assert graph.breadths.pop() == wanted == index.candidates(5, passing)


class Counting:
    """An index that finds the first items alone, and counts what it is asked for."""

    def __init__(self, size: int, dim: int) -> None:
        self.size, self.dim, self.asked = size, dim, list[int]()

    def __len__(self) -> int:
        return self.size

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        self.asked.append(k)
        rows = torch.arange(k).expand(len(queries), k)
        return -rows.float(), rows.clone()


def test_few_items_are_scored_and_many_are_asked_of_the_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items, index = torch.randn(1000, 4), Counting(1000, 4)
    held: Index = index
    monkeypatch.setattr(among, "WALK", 500.0)
    few = torch.arange(1000) < 100
    rows = Among(held, items, few).search(items[:3], 5)[1]
    assert index.asked == []
    assert (rows < 100).all()
    best = (items[:3] @ items[:100].T).sort(descending=True, dim=1)
    assert rows.tolist() == best.indices[:, :5].tolist()
    many = torch.arange(1000) % 2 == 1
    rows = Among(held, items, many).search(items[:3], 5)[1]
    assert index.asked == [15]
    assert rows.tolist() == [[1, 3, 5, 7, 9]] * 3
    # What the index leaves short is scored: none of the first 15 passes.
    late = torch.arange(1000) >= 200
    rows = Among(held, items, late).search(items[:3], 5)[1]
    best = (items[:3] @ items[200:].T).sort(descending=True, dim=1)
    assert rows.tolist() == (best.indices[:, :5] + 200).tolist()


class Filtering(Counting):
    """The same with a filter of its own, which does not meet the last items."""

    def search_passing(
        self, queries: Tensor, k: int, passes: Tensor, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        self.asked.append(k)
        rows = torch.full((len(queries), k), -1)
        met = passes[:300].nonzero().flatten()[:k]
        rows[:, : len(met)] = met
        return -rows.float().masked_fill(rows < 0, torch.inf), rows

    def candidates(self, k: int, num_passing: int) -> int:
        return 2 * k * self.size // num_passing


def test_an_index_with_its_own_filter_is_asked_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    items, index = torch.randn(1000, 4), Filtering(1000, 4)
    held: Index = index
    many = torch.arange(1000) % 2 == 1
    monkeypatch.setattr(among, "WALK", 500.0)
    assert Among(held, items, many).search(items[:3], 5)[1].tolist() == [[1, 3, 5, 7, 9]] * 3
    assert index.asked == [5]
    # What it does not meet is found all the same.
    late = torch.arange(1000) >= 298
    rows = Among(held, items, late).search(items[:3], 5)[1]
    best = (items[:3] @ items[298:].T).sort(descending=True, dim=1)
    assert rows.tolist() == (best.indices[:, :5] + 298).tolist()
    assert index.asked == [5, 5]


def test_the_more_queries_the_sooner_all_that_pass_are_scored() -> None:
    """A copy of the vectors is shared, and many queries are scored at less each."""
    ways: Any = Among(
        Filtering(100_000, 1), torch.zeros(100_000, 1), torch.arange(100_000) % 2 == 1
    )
    assert ways.depth(10, 1) is not None
    assert ways.depth(10, 10_000) is None


def test_where_all_pass_the_index_answers_alone() -> None:
    index: Any = Counting(1000, 4)
    Among(index, torch.randn(1000, 4), torch.ones(1000, dtype=torch.bool)).search(
        torch.randn(2, 4), 7
    )
    assert index.asked == [7]


def test_ties_go_to_the_smaller_row_and_nothing_passes_where_nothing_does() -> None:
    items = torch.ones(9, 2)
    passes = torch.tensor([False, True, True, False, True, False, True, True, False])
    rows = Among(ExactVectors(items), items, passes).search(torch.ones(1, 2), 3)[1]
    assert rows.tolist() == [[1, 2, 4]]
    scores, rows = Among(ExactVectors(items), items, passes & False).search(torch.ones(2, 2), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert (scores == -torch.inf).all()


def test_queries_keep_their_sets_in_another_order() -> None:
    rng = np.random.default_rng(3)
    passing, plain = passing_of(rng, 0.5)
    order = torch.tensor([3, 0, 0, 6])
    assert (passing.take(order).masks() == plain[order.numpy()]).all()
    assert len(passing.take(order)) == 4
