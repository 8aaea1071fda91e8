"""Shorter vectors against numerical optima, pairs counted one by one, and identities."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from recsys.retrieval.reduction import (
    SOLVERS,
    Floats,
    Pair,
    Solver,
    frank_wolfe,
    loss_of,
    principal,
    reduction_of,
    second_moment,
    shared,
    sphered,
)

ALL = (principal, sphered, shared, frank_wolfe)


def drawn(num: int, width: int, seed: int) -> torch.Tensor:
    """Return vectors (num, width) of unlike spread along directions of their own."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 2.0, width)
    turned = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return torch.randn(num, width, generator=generator) * spread @ turned


@pytest.fixture(scope="module")
def items() -> torch.Tensor:
    return drawn(300, 12, 0)


@pytest.fixture(scope="module")
def queries() -> torch.Tensor:
    """Out of distribution: their directions are others than the items'."""
    return drawn(200, 12, 1)


def unlike(products: torch.Tensor) -> torch.Tensor:
    """Return what tells items from each other: products less their query's mean."""
    return products - products.mean(1, keepdim=True)


def moments(items: torch.Tensor, queries: torch.Tensor) -> tuple[Floats, Floats]:
    return second_moment(items), second_moment(queries)


def test_the_loss_is_the_mean_over_all_pairs(items: torch.Tensor, queries: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    pair = Pair(rng.standard_normal((4, 12)), rng.standard_normal((4, 12)))
    x, q = items.double().numpy(), queries.double().numpy()
    by_hand = np.mean((q @ x.T - (q @ pair.queries.T) @ (x @ pair.items.T).T) ** 2)
    assert loss_of(pair, *moments(items, queries)) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_no_numerical_search_gets_below_the_closed_form(dim: int) -> None:
    of_items, of_queries = moments(drawn(200, 5, 2), drawn(100, 5, 3))

    def loss(flat: Floats) -> float:
        items, queries = flat.reshape(2, dim, 5)
        return loss_of(Pair(items, queries), of_items, of_queries)

    rng = np.random.default_rng(0)
    best = min(minimize(loss, rng.standard_normal(10 * dim)).fun for _ in range(3))
    found = loss_of(sphered(of_items, of_queries, dim), of_items, of_queries)
    assert found == pytest.approx(best, rel=1e-4)
    # What is left is what the discarded directions of whitened items hold (Eckart and Young).
    root = np.linalg.cholesky(of_queries).T
    rest = np.linalg.eigvalsh(root @ of_items @ root.T)[: 5 - dim].sum()
    assert found == pytest.approx(rest, rel=1e-6)


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_learning_from_queries_beats_the_items_directions(
    items: torch.Tensor, queries: torch.Tensor, dim: int
) -> None:
    found = {
        one: loss_of(one(*moments(items, queries), dim), *moments(items, queries)) for one in ALL
    }
    assert found[sphered] <= found[frank_wolfe] * (1 + 1e-9)
    assert found[frank_wolfe] < found[principal]
    assert found[sphered] <= found[shared] * (1 + 1e-9)
    assert found[shared] < found[principal]


def test_it_holds_for_queries_that_nothing_was_learnt_from(
    items: torch.Tensor, queries: torch.Tensor
) -> None:
    learnt_from, asked = queries[:100], queries[100:]
    exact = asked @ (items - items.mean(0)).T
    errors = {}
    for name, solve in SOLVERS.items():
        reduction = reduction_of(solve, items, learnt_from, 4)
        short = reduction.of_queries(asked) @ reduction.of_items(items).T
        errors[name] = float((exact - unlike(short)).square().mean())
    assert errors["leanvec"] < 0.85 * errors["pca"]


@pytest.mark.parametrize("solve", ALL)
def test_the_whole_width_loses_nothing(
    solve: Solver, items: torch.Tensor, queries: torch.Tensor
) -> None:
    reduction = reduction_of(solve, items, queries, 12)
    short = reduction.of_queries(queries) @ reduction.of_items(items).T
    torch.testing.assert_close(short, queries @ items.T, atol=1e-3, rtol=1e-3)
    assert reduction.dim == 12


def test_where_queries_are_spread_alike_all_agree_with_the_principal_directions(
    items: torch.Tensor,
) -> None:
    of_items, even = second_moment(items), np.eye(12)
    wanted = principal(of_items, even, 5).items
    for solve in (sphered, shared):
        found = solve(of_items, even, 5)
        np.testing.assert_allclose(found.items.T @ found.queries, wanted.T @ wanted, atol=1e-9)
    numpy_svd = np.linalg.svd(items.double().numpy())[2][:5]
    np.testing.assert_allclose(wanted.T @ wanted, numpy_svd.T @ numpy_svd, atol=1e-9)


def test_frank_wolfe_stays_in_the_ball(items: torch.Tensor, queries: torch.Tensor) -> None:
    pair = frank_wolfe(*moments(items, queries), 4)
    for matrix in (pair.items, pair.queries):
        assert np.linalg.svd(matrix)[1].max() <= 1 + 1e-9


def test_short_items_are_projections(items: torch.Tensor, queries: torch.Tensor) -> None:
    """However far apart queries make directions count."""
    rows = sphered(*moments(items, queries), 4).items
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-9)


def test_fewer_queries_than_numbers_lose_no_direction_of_items(items: torch.Tensor) -> None:
    """Whoever asks next looks where none of three queries looked."""
    queries = drawn(3, 12, 4)
    reduction = reduction_of(sphered, items, queries, 12)
    asked = drawn(50, 12, 5)
    short = reduction.of_queries(asked) @ reduction.of_items(items).T
    torch.testing.assert_close(short, asked @ items.T, atol=1e-2, rtol=1e-2)
    # The bare solution knows the three alone, and is exact for them with three numbers.
    pair = sphered(*moments(items, queries), 3)
    assert loss_of(pair, *moments(items, queries)) < 1e-9


def test_what_all_items_have_in_common_costs_no_number(
    items: torch.Tensor, queries: torch.Tensor
) -> None:
    moved = items + 10 * torch.ones(12)
    for name, solve in SOLVERS.items():
        near, far = (reduction_of(solve, one, queries, 4) for one in (items, moved))
        torch.testing.assert_close(
            unlike(near.of_queries(queries) @ near.of_items(items).T),
            unlike(far.of_queries(queries) @ far.of_items(moved).T),
            atol=1e-3,
            rtol=1e-3,
            msg=name,
        )
    bare = reduction_of(principal, moved, queries, 1, centred=False).items[0]
    assert float(bare.sum().abs()) / 12**0.5 > 0.99  # the mean takes the only number


def test_a_width_that_cannot_be_is_refused(items: torch.Tensor, queries: torch.Tensor) -> None:
    for dim in (0, 13):
        with pytest.raises(ValueError, match=f"a reduced width is from 1 to 12, got {dim}"):
            reduction_of(sphered, items, queries, dim)
