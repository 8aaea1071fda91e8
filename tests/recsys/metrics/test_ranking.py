"""Ranking metrics: by hand as fractions, against scikit-learn, against slow plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from recsys.metrics.ranking import (
    coverage_at_k,
    hit_rate_at_k,
    hits,
    mrr_at_k,
    ndcg_at_k,
    novelty_at_k,
    recall_at_k,
)

# Four queries: two hits; a short list; no hit; nothing relevant.
TOP = np.array([[5, 3, 8, 1], [2, -1, -1, -1], [0, 1, 2, 3], [4, 5, 6, 7]])
RELEVANT = np.array([3, 1, 9, 2, 7])
OFFSETS = np.array([0, 3, 4, 5, 5])
NUM = np.diff(OFFSETS)


def jagged(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([item for items in lists for item in items], np.int64)
    return values, np.cumsum([0, *map(len, lists)])


def test_metrics_by_hand() -> None:
    hit = hits(TOP, RELEVANT, OFFSETS)
    nan = math.nan
    # Query 0: relevant {3, 1, 9}, of which 3 is at rank 2 and 1 at rank 4.
    np.testing.assert_allclose(recall_at_k(hit, NUM, 4), [2 / 3, 1 / 1, 0 / 1, nan])
    np.testing.assert_allclose(recall_at_k(hit, NUM, 3), [1 / 3, 1 / 1, 0 / 1, nan])
    np.testing.assert_allclose(hit_rate_at_k(hit, NUM, 4), [1, 1, 0, nan])
    np.testing.assert_allclose(hit_rate_at_k(hit, NUM, 1), [0, 1, 0, nan])
    np.testing.assert_allclose(mrr_at_k(hit, NUM, 4), [1 / 2, 1 / 1, 0, nan])
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    np.testing.assert_allclose(ndcg_at_k(hit, NUM, 4), [gain / ideal, 1, 0, nan])
    # Cut at 2, the best list has two hits although three items are relevant.
    ideal = 1 / math.log2(2) + 1 / math.log2(3)
    np.testing.assert_allclose(ndcg_at_k(hit, NUM, 2), [1 / math.log2(3) / ideal, 1, 0, nan])


def test_catalogue_metrics_by_hand() -> None:
    # The first places name 5, 2, 0, 4; the first two 5, 3, 2, 0, 1, 4 (5 twice).
    assert coverage_at_k(TOP, 12, 1) == 4 / 12
    assert coverage_at_k(TOP, 12, 2) == 6 / 12
    assert coverage_at_k(np.full((2, 3), -1), 12, 2) == 0
    # Counts 7, 0, 1 of three items: (7 + 1) / 11, (0 + 1) / 11, (1 + 1) / 11.
    expected = (math.log2(11 / 8) + math.log2(11 / 1) + math.log2(11 / 1)) / 3
    top = np.array([[0, 1], [1, -1]])
    assert novelty_at_k(top, np.array([7, 0, 1]), 2) == pytest.approx(expected)
    assert math.isnan(novelty_at_k(np.full((2, 3), -1), np.array([7, 0, 1]), 2))


def test_an_item_named_twice_is_one_hit_at_its_better_rank() -> None:
    hit = hits(np.array([[9, 4, 4, 4], [4, 4, 9, 9]]), *jagged([[4, 6], [9]]))
    assert hit.tolist() == [[False, True, False, False], [False, False, True, False]]
    assert recall_at_k(hit, np.array([2, 1]), 4).tolist() == [1 / 2, 1]
    with pytest.raises(ValueError, match="names a relevant item twice"):
        hits(np.array([[9, 4]]), *jagged([[4, 4]]))


def test_padding_never_hits_and_other_queries_items_never_count() -> None:
    # -1 of query 1 must not meet the largest item of query 0 in a flattened key.
    top = np.array([[0, 1], [-1, -1], [9, 0]])
    assert not hits(top, *jagged([[9], [8], [8]])).any()
    assert not hits(top, *jagged([[], [], []])).any()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_equals_scikit_learn_whatever_the_sign_of_the_scores(k: int) -> None:
    generator = np.random.default_rng(0)
    relevance = generator.random((30, 25)) < 0.2
    relevance[:, 0] = True
    scores = generator.permuted(np.tile(np.linspace(-9.0, -1.0, 25), (30, 1)), axis=1)
    top = np.argsort(-scores, axis=1)[:, :10]
    values, offsets = jagged([np.flatnonzero(row).tolist() for row in relevance])
    ours = ndcg_at_k(hits(top, values, offsets), np.diff(offsets), k).mean()
    assert ours == pytest.approx(ndcg_score(relevance, scores, k=k))


def slow(top: list[int], relevant: set[int], k: int) -> tuple[float, float, float, float]:
    seen: set[int] = set()
    gains = []
    for item in top[:k]:
        gains.append(item in relevant and item not in seen)
        seen.add(item)
    if not relevant:
        return (math.nan,) * 4
    dcg = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
    best = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
    first = 1 / (gains.index(True) + 1) if any(gains) else 0.0
    return sum(gains) / len(relevant), float(any(gains)), dcg / best, first


ROW = st.tuples(
    st.lists(st.integers(-1, 12), min_size=6, max_size=6), st.sets(st.integers(0, 12), max_size=9)
)


@settings(max_examples=100)
@given(rows=st.lists(ROW, min_size=1, max_size=8), k=st.integers(1, 6))
def test_metrics_equal_slow_python(rows: list[tuple[list[int], set[int]]], k: int) -> None:
    top = np.array([row[0] for row in rows])
    values, offsets = jagged([list(row[1]) for row in rows])
    hit, num = hits(top, values, offsets), np.diff(offsets)
    fast = [metric(hit, num, k) for metric in (recall_at_k, hit_rate_at_k, ndcg_at_k, mrr_at_k)]
    np.testing.assert_allclose(np.stack(fast, 1), [slow(*row, k) for row in rows], atol=1e-12)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"k must be in 1\.\.4.*got 5"):
        recall_at_k(hits(TOP, RELEVANT, OFFSETS), NUM, 5)
    with pytest.raises(ValueError, match="Q \\+ 1 offsets"):
        hits(TOP, RELEVANT, OFFSETS[:-1])
