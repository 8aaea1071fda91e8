"""Baselines against slow dense references."""

from collections.abc import Callable

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from recsys.plain import graph, interactions
from recsys.plain.factorised import ImplicitAls
from recsys.plain.graph import GraphFilter, graph_products
from recsys.plain.interactions import Baseline
from recsys.plain.linear import Ease
from recsys.plain.neighbours import ItemKNN
from recsys.plain.popularity import Popularity

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
        monkeypatch.setattr(interactions, "CELLS_AT_ONCE", cells)
        fitted = ItemKNN.fit(users, items, ITEMS, neighbours=neighbours, shrinkage=shrinkage)
        scores = fitted.score(*jagged(histories))
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_ties_keep_the_smaller_rows() -> None:
    # Every user took every item: all similarities are equal.
    users, items = np.divmod(np.arange(4 * 6), 6)
    kept = ItemKNN.fit(users, items, 6, neighbours=2).similarity
    found = np.sort(kept.indices.reshape(6, 2))
    assert found.tolist() == [
        [1, 2],
        [0, 2],
        [0, 1],
        [0, 1],
        [0, 1],
        [0, 1],
    ]


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


@pytest.mark.parametrize("cells", [10**6, 5 * ITEMS])
def test_ease_is_a_ridge_regression_of_each_item_on_all_others(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactions, "CELLS_AT_ONCE", cells)
    users, items = log(2)
    ones = np.zeros((USERS, ITEMS))
    ones[users, items] = 1
    expected = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        rest = np.delete(np.arange(ITEMS), item)
        others = ones[:, rest]
        normal = others.T @ others + 7.0 * np.eye(ITEMS - 1)
        expected[rest, item] = np.linalg.solve(normal, others.T @ ones[:, item])
    fitted = Ease.fit(users, items, ITEMS, l2=7.0)
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-5)
    history = [0, 3, 3, 5]
    scores = fitted.score(*jagged([history, []]))
    np.testing.assert_allclose(scores, [expected[[0, 3, 5]].sum(0), np.zeros(ITEMS)], atol=1e-5)


def test_ease_says_that_a_penalty_is_too_small() -> None:
    users, items = np.divmod(np.arange(6), 3)  # every item by every user: one direction
    with pytest.raises(ValueError, match="l2 of 0 leaves the Gram matrix singular"):
        Ease.fit(users, items, 3, l2=0)


@pytest.mark.parametrize(("rank", "alpha"), [(4, 0.3), (4, 0.0), (256, 1.5)])
def test_the_graph_filter_equals_the_dense_one_by_either_way(
    rank: int, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items = log(3)
    ones = np.zeros((USERS, ITEMS))
    ones[users, items] = 1  # the last item has no interactions
    of_user, of_item = ones.sum(1), ones.sum(0)
    safe = np.maximum(of_item, 1)
    normal = ones / np.sqrt(np.outer(of_user, safe))
    vectors = np.linalg.svd(normal)[2][:rank]
    smooth = np.diag(safe**-0.5) @ vectors.T @ vectors @ np.diag(of_item**0.5)
    histories = [[0, 3, 3, 5], [], [1, 2, 4, 6, 8, 10]]
    asked = np.array([[float(item in history) for item in range(ITEMS)] for history in histories])
    expected = asked @ normal.T @ normal + alpha * asked @ smooth
    for whole, cells in ((10_000, 10**6), (10_000, 5 * ITEMS), (0, 10**6), (0, 2 * USERS)):
        monkeypatch.setattr(graph, "WHOLE_ITEMS", whole)
        monkeypatch.setattr(graph, "CELLS_AT_ONCE", cells)
        monkeypatch.setattr(interactions, "CELLS_AT_ONCE", cells)
        fitted = GraphFilter.fit(users, items, ITEMS, rank=rank, alpha=alpha)
        assert (fitted.whole is not None) == (whole > 0)
        np.testing.assert_allclose(fitted.score(*jagged(histories)), expected, atol=1e-5)


def test_the_work_of_a_graph_filter_is_in_its_sparse_products() -> None:
    assert graph_products(1_000, graph.WHOLE_ITEMS, 7) == 0
    assert graph_products(1_000, graph.WHOLE_ITEMS + 1, 7) == 14_000


def als_objective_is_least(
    ones: np.ndarray, own: np.ndarray, others: np.ndarray, confidence: float, l2: float
) -> np.ndarray:
    """The vectors that minimise equation 3 for fixed `others`, row by row."""
    found = np.empty_like(own)
    for row, taken_by in enumerate(ones):
        weight = np.where(taken_by > 0, confidence, 1.0)
        normal = others.T @ (weight[:, None] * others) + l2 * np.eye(others.shape[1])
        found[row] = np.linalg.solve(normal, others.T @ (weight * taken_by))
    return found


def test_als_ends_where_users_items_and_queries_solve_their_least_squares() -> None:
    pytest.importorskip("implicit")
    users, items = log(4)
    ones = np.zeros((USERS, ITEMS))
    ones[users, items] = 1
    settings = {"confidence": 6.0, "l2_share": 0.25}
    l2 = 0.25 * ones.sum() / ITEMS
    fitted = ImplicitAls.fit(users, items, ITEMS, factors=3, iterations=300, **settings)
    item_ME = fitted.item_factors.astype(np.float64)
    user_NE = als_objective_is_least(ones, np.empty((USERS, 3)), item_ME, 6.0, l2)
    assert item_ME.shape == (ITEMS, 3)
    best = als_objective_is_least(ones.T, item_ME, user_NE, 6.0, l2)
    np.testing.assert_allclose(item_ME, best, atol=2e-3)
    assert np.abs(best).max() > 0.1
    histories = [[0, 3, 3, 5], [], [1, 2, 4, 6, 8, 10]]
    asked = np.array([[float(item in history) for item in range(ITEMS)] for history in histories])
    vectors = als_objective_is_least(asked, np.empty((3, 3)), item_ME, 6.0, l2)
    scores = fitted.score(*jagged(histories))
    np.testing.assert_allclose(scores, vectors @ item_ME.T, atol=1e-4)


def test_als_with_a_seed_gives_the_same_scores_again_and_others_with_another() -> None:
    pytest.importorskip("implicit")
    one, same, other = (
        ImplicitAls.fit(*log(5), ITEMS, factors=3, iterations=2, seed=seed).score(*jagged([[1, 2]]))
        for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_als_keeps_the_threads_of_blas_out_of_its_own() -> None:
    pytest.importorskip("implicit")  # which warns where BLAS has threads, and warnings are errors
    with threadpool_limits(2, "blas"):
        fitted = ImplicitAls.fit(*log(6), ITEMS, factors=3, iterations=1)
        fitted.score(*jagged([[1]]))


Fit = Callable[..., Baseline]
PERSONAL = [ItemKNN.fit, Ease.fit, GraphFilter.fit, ImplicitAls.fit]


@pytest.mark.parametrize("fit", PERSONAL, ids=["item_knn", "ease", "gf_cf", "ials"])
def test_a_history_from_one_half_of_the_world_gets_that_half(fit: Fit) -> None:
    if fit == ImplicitAls.fit:
        pytest.importorskip("implicit")
    generator = np.random.default_rng(0)
    side = np.repeat([0, 1], 60)  # users of a side take items of its half: 0-9, 10-19
    users = np.repeat(np.arange(120), 6)
    items = (side[users] * 10 + generator.integers(0, 10, len(users))).astype(np.int64)
    scores = fit(users, items, 20).score(*jagged([[1, 4], [12, 15, 19], [1, 4]]))
    assert scores.shape == (3, 20)
    assert scores.dtype == np.float32
    assert scores[0, :10].min() > scores[0, 10:].max()
    new = [item for item in range(10, 20) if item not in (12, 15, 19)]
    assert scores[1, new].min() > scores[1, :10].max()
    np.testing.assert_allclose(scores[2], scores[0], atol=1e-6)  # alone or among others
