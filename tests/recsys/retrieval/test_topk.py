"""Exact top-k against a full sort, along every path it can take."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import DataError
from recsys.data.batch import Jagged
from recsys.retrieval import folded, pairs, scan, screen, topk
from recsys.retrieval.prepared import Prepared
from recsys.retrieval.topk import exact_topk, topk_of_scores

Lists = tuple[NDArray[np.float32], NDArray[np.int64]]
PATHS = [
    pytest.param(False, id="float32"),
    pytest.param(
        True,
        id="int8",
        marks=pytest.mark.skipif(not screen.bytes_pay(), reason="no exact int8 products here"),
    ),
]


def oracle(scores: NDArray[np.float32], k: int, exclude: Jagged | None) -> Lists:
    """Sort every row by (-score, row), leave out what is excluded, cut to k."""
    best = np.full((len(scores), k), -np.inf, np.float32)
    rows = np.full((len(scores), k), -1, np.int64)
    for query, line in enumerate(scores):
        hidden: set[int] = set()
        if exclude is not None:
            start, stop = exclude.offsets[query : query + 2].tolist()
            hidden = set(exclude.values[start:stop].tolist())
        order = np.lexsort((np.arange(len(line)), -line))
        left = [row for row in order.tolist() if row not in hidden and line[row] > -np.inf][:k]
        best[query, : len(left)] = line[left]
        rows[query, : len(left)] = left
    return best, rows


def all_scores(queries: Tensor, items: Tensor) -> NDArray[np.float32]:
    """Every pair's score, by the function that defines what a score is."""
    query, row = np.indices((len(queries), len(items))).reshape(2, -1)
    return pairs.score_pairs(queries, items, query, row).reshape(len(queries), len(items))


def exclusions(generator: torch.Generator, num_queries: int, num_items: int, most: int) -> Jagged:
    lengths = torch.randint(0, most + 1, (num_queries,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Jagged(torch.randint(0, num_items, (int(offsets[-1]),), generator=generator), offsets)


def assert_same(found: tuple[Tensor, Tensor], expected: Lists) -> None:
    np.testing.assert_array_equal(found[1].numpy(), expected[1])
    np.testing.assert_array_equal(found[0].numpy(), expected[0])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 5)),
    k=st.integers(1, 50),
    most=st.integers(0, 45),
    chunk=st.integers(1, 10),
)
def test_small_problems_equal_a_full_sort_with_many_ties(
    seed: int, sizes: tuple[int, int, int], k: int, most: int, chunk: int
) -> None:
    num_queries, num_items, dim = sizes
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-2, 3, (num_queries, dim), generator=generator).float()
    items = torch.randint(-2, 3, (num_items, dim), generator=generator).float()
    exclude = exclusions(generator, num_queries, num_items, most)
    expected = oracle((queries @ items.T).numpy(), k, exclude)
    assert_same(exact_topk(queries, items, k, exclude, query_chunk=chunk), expected)
    assert_same(topk_of_scores(queries @ items.T, k, exclude), expected)


def gaussian(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1)


def tied(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-1, 2, (count, dim), generator=generator).float()


def collapsed(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(10 + torch.randn(count, dim, generator=generator), dim=1)


def repeated(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return gaussian(max(1, count // 7), dim, generator).repeat(8, 1)[:count]


def rising(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return gaussian(count, dim, generator) * torch.linspace(0, 9, count)[:, None]


def nearly_constant(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return 1 + 1e-7 * torch.randn(count, dim, generator=generator)


def constant(count: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.ones(count, dim)


@pytest.fixture
def dense_answers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries were answered from all their scores, call by call."""
    counts: list[int] = []
    whole = topk._Search._unscreened

    def counted(self: topk._Search, queries: Tensor, excluded: screen.Excluded) -> Lists:
        counts.append(len(queries))
        return whole(self, queries, excluded)

    monkeypatch.setattr(topk._Search, "_unscreened", counted)
    return counts


@pytest.mark.parametrize("in_bytes", PATHS)
@pytest.mark.parametrize(
    "world", [gaussian, tied, collapsed, repeated, rising, nearly_constant, constant]
)
@pytest.mark.parametrize(("num_items", "dim", "k"), [(1031, 3, 4), (1500, 16, 10), (2048, 33, 1)])
def test_screening_loses_nothing(
    world: Callable[[int, int, torch.Generator], Tensor],
    num_items: int,
    dim: int,
    k: int,
    in_bytes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screen, "bytes_pay", lambda: in_bytes)
    monkeypatch.setattr(screen, "CROWDED", 1)
    monkeypatch.setattr(screen, "FEWEST_TO_PREPARE", 1)
    assert screen.worthwhile(70, 70, num_items, k, 32)
    generator = torch.Generator().manual_seed(num_items)
    items, queries = world(num_items, dim, generator), world(70, dim, generator)
    exclude = exclusions(generator, 70, num_items, 30)
    # The best items of the first query are hidden from it, and nearly all from the second.
    best = (queries[0] @ items.T).topk(20).indices
    rest = exclude.take(torch.arange(2, 70))
    values = torch.cat([best, torch.arange(2, num_items), rest.values])
    lengths = torch.cat([torch.tensor([20, num_items - 2]), rest.lengths()])
    exclude = Jagged(values, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]))
    expected = oracle(all_scores(queries, items), k, exclude)
    assert_same(exact_topk(queries, items, k, exclude, query_chunk=33, item_tile=32), expected)
    assert (expected[1][1] >= 0).sum() == min(2, k)


@pytest.mark.parametrize("in_bytes", PATHS)
def test_what_rounding_takes_from_a_query_is_accounted_for(
    in_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "bytes_pay", lambda: in_bytes)
    monkeypatch.setattr(screen, "CROWDED", 1)
    monkeypatch.setattr(screen, "FEWEST_TO_PREPARE", 1)
    generator = torch.Generator().manual_seed(0)
    # All but the first number of a query round to zero, and together they decide.
    queries = torch.cat([torch.ones(64, 1), torch.full((64, 32), 0.49 / 127)], dim=1)
    first, others = torch.randn(2, 2048, 1, generator=generator)
    items = torch.cat([0.1 * first, others.expand(2048, 32)], dim=1)
    found = exact_topk(queries, items, 10, item_tile=32)
    assert_same(found, oracle(all_scores(queries, items), 10, None))


@pytest.mark.parametrize("in_bytes", PATHS)
@pytest.mark.parametrize("world", [gaussian, collapsed])
def test_screening_answers_nearly_every_query_itself(
    world: Callable[[int, int, torch.Generator], Tensor],
    in_bytes: bool,
    monkeypatch: pytest.MonkeyPatch,
    dense_answers: list[int],
) -> None:
    monkeypatch.setattr(screen, "bytes_pay", lambda: in_bytes)
    monkeypatch.setattr(screen, "FEWEST_TO_PREPARE", 1)
    generator = torch.Generator().manual_seed(0)
    items, queries = world(9000, 32, generator), gaussian(200, 32, generator)
    found = exact_topk(queries, items, 20, item_tile=64)
    assert_same(found, oracle(all_scores(queries, items), 20, None))
    assert sum(dense_answers) < 20


def test_a_sample_that_misleads_costs_time_but_no_item(
    monkeypatch: pytest.MonkeyPatch, dense_answers: list[int]
) -> None:
    monkeypatch.setattr(screen, "bytes_pay", lambda: False)
    monkeypatch.setattr(screen, "CROWDED", 1)
    monkeypatch.setattr(screen, "FEWEST_TO_PREPARE", 1)
    generator = torch.Generator().manual_seed(0)
    items = gaussian(2048, 8, generator) * 0.01
    queries = torch.nn.functional.normalize(torch.rand(64, 8, generator=generator), dim=1)
    # The first tile is in the sample, and all the good items are in it: 32, and 40 are wanted.
    items[:: 2048 // 32] = 1 + torch.rand(32, 8, generator=generator)
    found = exact_topk(queries, items, 40, item_tile=32)
    assert_same(found, oracle(all_scores(queries, items), 40, None))
    assert sum(dense_answers) >= 64


@pytest.mark.skipif(not scan.can_fold(), reason="no compiler here")
@pytest.mark.parametrize("world", [gaussian, tied, repeated, rising, nearly_constant, constant])
@pytest.mark.parametrize("num_queries", [1, 2, 3, 5, 80])
def test_few_queries_equal_a_full_sort(
    world: Callable[[int, int, torch.Generator], Tensor], num_queries: int
) -> None:
    generator = torch.Generator().manual_seed(num_queries)
    items, queries = world(1031, 19, generator), world(num_queries, 19, generator)
    # The best of the first query are hidden; the last one hides so much that it is left.
    exclude = exclusions(generator, num_queries, 1031, 12)
    best = (queries[0] @ items.T).topk(9).indices
    lengths = exclude.lengths()
    rest = exclude.values[exclude.offsets[1] :]
    values = torch.cat([best, rest])
    exclude = Jagged(
        values, torch.nn.functional.pad(lengths.index_fill(0, torch.tensor(0), 9).cumsum(0), (1, 0))
    )
    for known in (items, Prepared(items)):
        found = exact_topk(queries, known, 4, exclude)
        assert_same(found, oracle(all_scores(queries, items), 4, exclude))


@pytest.mark.skipif(not scan.can_fold(), reason="no compiler here")
def test_few_queries_look_at_few_items() -> None:
    generator = torch.Generator().manual_seed(1)
    items, queries = gaussian(4096, 16, generator), gaussian(2, 16, generator)
    none = screen.Excluded(np.zeros(0, np.int64), np.zeros(0, np.int64))
    query, row, left = folded.candidates(queries, Prepared(items), none, 5)
    assert len(left) == 0
    assert len(row) == 2 * 5 * scan.LANES
    assert set(exact_topk(queries, items, 5)[1][1].tolist()) <= set(row[query == 1].tolist())


@pytest.mark.parametrize("compiled", ["folded_maxima", "pairs_above", "neither"])
def test_without_a_compiler_the_bits_are_the_same(
    compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    items, queries = gaussian(2500, 17, generator), gaussian(90, 17, generator)
    exclude = exclusions(generator, 90, 2500, 30)
    expected = oracle(all_scores(queries, items), 7, exclude)
    monkeypatch.setattr(scan, "can_fold", lambda: compiled == "folded_maxima")
    if compiled != "pairs_above":
        monkeypatch.setattr(scan, "can_multiply_bytes", lambda: False)
    for fewest in (1, 100):
        monkeypatch.setattr(screen, "FEWEST_TO_PREPARE", fewest)
        monkeypatch.setattr(screen, "CROWDED", 1)
        assert_same(exact_topk(queries, items, 7, exclude, item_tile=32), expected)


def test_items_that_are_kept_are_prepared_once_enough_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(6)
    items, queries = gaussian(1500, 8, generator), gaussian(64, 8, generator)
    made: list[int] = []
    whole = screen.float_tiles

    def counted(vectors: Tensor, tile: int) -> screen.Tiles:
        made.append(tile)
        return whole(vectors, tile)

    monkeypatch.setattr(screen, "float_tiles", counted)
    monkeypatch.setattr(screen, "FEWEST_TO_PREPARE", 150)
    monkeypatch.setattr(screen, "CROWDED", 1)
    known, expected = Prepared(items), oracle(all_scores(queries, items), 3, None)
    for calls in (0, 0, 1, 1):
        assert_same(exact_topk(queries, known, 3, item_tile=32), expected)
        assert len(made) == calls


def test_cut_anyhow_alone_or_on_two_threads_the_bits_are_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    items, queries = gaussian(3000, 24, generator), gaussian(150, 24, generator)
    exclude = exclusions(generator, 150, 3000, 40)
    whole = exact_topk(queries, items, 15, exclude)
    for query_chunk, item_tile in [(7, 32), (64, 40), (150, 96), (1, 5000)]:
        cut = exact_topk(queries, items, 15, exclude, query_chunk=query_chunk, item_tile=item_tile)
        assert torch.equal(cut[0], whole[0])
        assert torch.equal(cut[1], whole[1])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            exact_topk(queries[:5], items, 15, exclude.take(torch.arange(5)))[1], whole[1][:5]
        )
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            threaded = exact_topk(queries, items, 15, exclude, query_chunk=20, item_tile=32)
        assert torch.get_num_threads() == 2
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(threaded[0], whole[0])
    alone = [exact_topk(queries[[q]], items, 15, exclude.take(torch.tensor([q]))) for q in (0, 9)]
    assert torch.equal(torch.cat([rows for _, rows in alone]), whole[1][[0, 9]])
    assert torch.equal(torch.cat([scores for scores, _ in alone]), whole[0][[0, 9]])


def test_scores_are_inner_products() -> None:
    generator = torch.Generator().manual_seed(4)
    items, queries = gaussian(500, 129, generator), gaussian(20, 129, generator)
    exact = queries.double().numpy() @ items.double().numpy().T
    np.testing.assert_allclose(all_scores(queries, items), exact, atol=1e-6)


def test_keys_too_long_for_64_bits_are_sorted_otherwise_and_equally() -> None:
    rng = np.random.default_rng(0)
    query, row = np.arange(9).repeat(40), rng.integers(0, 50, 360)
    score = rng.integers(-2, 3, 360).astype(np.float32) * np.float32(0.5)
    packed = pairs.top_of_pairs(query, row, score, num_queries=10, num_rows=50, k=45)
    sorted_ = pairs.top_of_pairs(query, row, score, num_queries=10, num_rows=2**31, k=45)
    for one, other in zip(packed, sorted_, strict=True):
        np.testing.assert_array_equal(one, other)
    assert packed[1][9].tolist() == [-1] * 45


def test_minus_infinity_counts_as_excluded_and_negative_zero_ties_with_zero() -> None:
    scores = torch.tensor([[-0.0, 0.0, -torch.inf, torch.inf, -1.0]])
    assert topk_of_scores(scores, 5)[1].tolist() == [[3, 0, 1, 4, -1]]


def test_no_queries_and_no_items() -> None:
    assert exact_topk(torch.zeros(0, 3), torch.ones(4, 3), 2)[1].shape == (0, 2)
    assert exact_topk(torch.ones(2, 3), torch.ones(0, 3), 2)[1].tolist() == [[-1, -1]] * 2
    assert topk_of_scores(torch.zeros(0, 3), 2)[1].shape == (0, 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_numbers_that_cannot_be_ranked_are_refused(bad: float) -> None:
    vectors = torch.ones(3, 2)
    vectors[1, 0] = bad
    with pytest.raises(DataError, match="items: row 1 holds NaN, infinity or a number so large"):
        exact_topk(torch.ones(1, 2), vectors, 1)
    with pytest.raises(DataError, match="queries: row 1 holds"):
        exact_topk(vectors, torch.ones(1, 2), 1)
    many = torch.ones(500, 2)
    many[123, 1] = bad
    for count in (1, 20, 300):
        with pytest.raises(DataError, match="items: row 123 holds NaN, infinity or a number"):
            exact_topk(torch.ones(count, 2), many, 1)
    if bad != bad:
        with pytest.raises(DataError, match="scores: row 1 holds NaN"):
            topk_of_scores(vectors, 1)


def test_arguments_that_do_not_fit_are_refused() -> None:
    one, two = torch.ones(1, 2), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"one width, got \(1, 2\) and \(2, 3\)"):
        exact_topk(one, two, 1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        exact_topk(two, two, 0)
    with pytest.raises(ValueError, match="item_tile must be at least 1, got -1"):
        exact_topk(two, two, 1, item_tile=-1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        topk_of_scores(two, 0)
    with pytest.raises(ValueError, match=r"scores must be \(queries, items\), got \(3,\)"):
        topk_of_scores(two[0], 1)
    exclude = Jagged(torch.tensor([2]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="exclude has 1 rows for 2 queries"):
        exact_topk(two, two, 1, exclude)
    with pytest.raises(ValueError, match="names item row 2; there are rows 0 to 1"):
        exact_topk(two[:1], two, 1, exclude)
