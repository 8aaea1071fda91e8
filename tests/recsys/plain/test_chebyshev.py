"""The filter by Chebyshev interpolation against one made with dense matrices."""

import numpy as np
import pytest

from recsys.plain import chebyshev
from recsys.plain.chebyshev import ChebyshevFilter, response
from recsys.plain.graph import GraphFilter

ITEMS, USERS = 11, 17


def log(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Interactions without the last item and the last user, some of them twice."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, USERS - 1, 70), rng.integers(0, ITEMS - 1, 70)


def dense(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R~ and the number of users of each item."""
    ones = np.zeros((USERS, ITEMS))
    ones[users, items] = 1
    of_user, of_item = ones.sum(1), ones.sum(0)
    scale = np.sqrt(np.outer(np.maximum(of_user, 1), np.maximum(of_item, 1)))
    return ones / scale, of_item


@pytest.mark.parametrize("whole", [0, ITEMS])
@pytest.mark.parametrize(("order", "flatness"), [(1, 1.0), (4, 2.0), (9, 10.0)])
def test_it_equals_the_dense_one_by_either_way(
    order: int, flatness: float, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items = log(0)
    normalised, of_item = dense(users, items)
    rank, alpha, degree = 3, 0.3, 0.4
    values, vectors = np.linalg.eigh(normalised.T @ normalised)
    nodes = np.cos((np.arange(order + 1) + 0.5) / (order + 1) * np.pi)
    # The polynomial of that degree through the response at the nodes, by Lagrange.
    x = 1 - 2 * values
    polynomial = np.zeros(ITEMS)
    for node in nodes:
        others = nodes[nodes != node]
        basis = np.prod([(x - other) / (node - other) for other in others], axis=0)
        polynomial += response(np.array(node), flatness) * basis
    smooth = vectors @ np.diag(polynomial) @ vectors.T
    right = np.linalg.svd(normalised)[2][:rank]
    power = np.where(of_item > 0, np.maximum(of_item, 1) ** degree, 0)
    history = np.zeros((3, ITEMS))
    history[0, [0, 4]] = 1
    history[1, [2, 3, ITEMS - 1]] = 1
    weighed = history / np.where(power > 0, power, np.inf)
    wanted = (weighed @ smooth + alpha * weighed @ right.T @ right) * power

    monkeypatch.setattr(chebyshev, "WHOLE_ITEMS", whole)
    monkeypatch.setattr(chebyshev, "CELLS_AT_ONCE", 4 * USERS)
    fitted = ChebyshevFilter.fit(
        users, items, ITEMS, order=order, flatness=flatness, rank=rank, alpha=alpha, degree=degree
    )
    found = fitted.score(np.array([0, 4, 4, 2, 3, ITEMS - 1]), np.array([0, 3, 6, 6]))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert (found[:, -1] == 0).all()


def test_of_one_degree_and_a_straight_response_it_is_the_linear_filter() -> None:
    users, items = log(1)
    settings = {"rank": 1, "alpha": 0.0}
    fitted = ChebyshevFilter.fit(users, items, ITEMS, order=1, flatness=1.0, degree=0.0, **settings)
    linear = GraphFilter.fit(users, items, ITEMS, **settings)
    history = np.array([1, 5, 7]), np.array([0, 3])
    np.testing.assert_allclose(fitted.score(*history), linear.score(*history), atol=1e-5)


def test_the_response_is_one_for_what_is_smooth_and_half_in_the_middle() -> None:
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert response(x, 2.0).tolist() == [1.0, 0.625, 0.5, 0.375, 0.0]
