"""Baselines against slow dense references."""

import numpy as np
import pytest

from training import baselines
from training.baselines import ItemKNN, Popularity

USERS, ITEMS = 30, 17


def log(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    items = np.minimum(generator.geometric(0.15, 400) - 1, ITEMS - 2)
    return generator.integers(0, USERS, 400), items


def jagged(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([item for items in lists for item in items], np.int64)
    return values, np.cumsum([0, *map(len, lists)])


def slow_knn(
    users: np.ndarray, items: np.ndarray, history: list[int], neighbours: int, shrinkage: float
) -> list[float]:
    takers = [set(users[items == item].tolist()) for item in range(ITEMS)]
    scores = [0.0] * ITEMS
    for i in sorted(set(history)):
        found = []
        for j in range(ITEMS):
            both = len(takers[i] & takers[j])
            if j != i and both:
                root = (len(takers[i]) * len(takers[j])) ** 0.5
                found.append((-both / (root + shrinkage), j))
        for similarity, j in sorted(found)[:neighbours]:
            scores[j] -= similarity
    return scores


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(3, 0.0), (5, 10.0), (100, 2.5)])
def test_item_knn_equals_the_slow_one_also_in_blocks(
    neighbours: int, shrinkage: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items = log(1)
    histories = [[0, 3, 3, 5], [], [ITEMS - 1], [1, 2, 4, 6, 8, 10]]
    expected = [slow_knn(users, items, history, neighbours, shrinkage) for history in histories]
    for cells in (10**6, 5 * ITEMS):
        monkeypatch.setattr(baselines, "_CELLS_AT_ONCE", cells)
        fitted = ItemKNN.fit(users, items, ITEMS, neighbours=neighbours, shrinkage=shrinkage)
        scores = fitted.score(*jagged(histories))
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_ties_keep_the_smaller_rows() -> None:
    # Every user took every item: all similarities are equal.
    users, items = np.divmod(np.arange(4 * 6), 6)
    kept = ItemKNN.fit(users, items, 6, neighbours=2).similarity
    assert kept.indices.reshape(6, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_popularity_counts_users_not_events_and_only_inside_the_window() -> None:
    users = np.array([0, 0, 0, 1, 2, 1])
    items = np.array([4, 4, 4, 2, 2, 0])
    time = np.array([10, 20, 99, 30, 80, 100])
    scores = Popularity.fit(users, items, 5).score(*jagged([[4], []]))
    assert scores.tolist() == [[1, 0, 2, 0, 1]] * 2
    windowed = Popularity.fit(users, items, 5, time=time, window=20)
    assert windowed.num_users.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="window needs the times"):
        Popularity.fit(users, items, 5, window=20)
