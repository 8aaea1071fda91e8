"""Losses without labels: by hand, in a slow loop, and who counts as another."""

from math import exp, log

import pytest
import torch
from torch import Tensor

from recsys.losses.contrastive import contrastive_loss, spread_out_loss


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / one.norm() / other.norm())


def slow_contrastive(first: Tensor, second: Tensor, temperature: float, ids: list[int]) -> float:
    losses = []
    for n in range(len(first)):
        others = [m for m in range(len(first)) if m == n or ids[m] != ids[n]]
        weights = {m: exp(cosine(first[n], second[m]) / temperature) for m in others}
        losses.append(-log(weights[n] / sum(weights.values())))
    return sum(losses) / len(losses)


def test_two_rows_by_hand() -> None:
    """Cosines 1 and 0 for row 0, 3/5 and 4/5 for row 1; temperature 1/2."""
    first = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    second = torch.tensor([[7.0, 0.0], [0.0, 0.5]])
    expected = (log(1 + exp(0 - 2)) + log(1 + exp(1.2 - 1.6))) / 2
    assert float(contrastive_loss(first, second, 0.5)) == pytest.approx(expected)
    # Asked the other way round it is another number: cosines 1 and 3/5, 0 and 4/5.
    other_way = (log(1 + exp(1.2 - 2)) + log(1 + exp(0 - 1.6))) / 2
    assert float(contrastive_loss(second, first, 0.5)) == pytest.approx(other_way)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 0], [5, 5, 5, 5, 5]])
def test_any_rows_in_a_slow_loop(ids: list[int], temperature: float) -> None:
    first, second = torch.randn(2, 5, 3)
    found = contrastive_loss(first, second, temperature, torch.tensor(ids))
    assert float(found) == pytest.approx(slow_contrastive(first, second, temperature, ids), 1e-5)


def test_rows_of_one_item_push_each_other_nowhere() -> None:
    first = torch.randn(3, 4)
    second = torch.randn(3, 4, requires_grad=True)
    contrastive_loss(first[:2], second[:2], 0.5, torch.tensor([9, 9])).backward()
    assert second.grad is not None
    assert not second.grad.any()
    contrastive_loss(first, second, 0.5, torch.tensor([9, 9, 3])).backward()
    assert second.grad.any(1).all()


def test_ids_that_differ_are_as_no_ids() -> None:
    first, second = torch.randn(2, 6, 3)
    assert torch.equal(
        contrastive_loss(first, second, 0.1, torch.arange(6)), contrastive_loss(first, second, 0.1)
    )
    assert torch.equal(spread_out_loss(first, torch.arange(6)), spread_out_loss(first))


def slow_spread_out(rows: Tensor, ids: list[int]) -> float:
    pairs = [
        cosine(rows[n], rows[m])
        for n in range(len(rows))
        for m in range(len(rows))
        if ids[n] != ids[m]
    ]
    if not pairs:
        return 0.0
    first = sum(pairs) / len(pairs)
    second = sum(value**2 for value in pairs) / len(pairs)
    return first**2 + max(0.0, second - 1 / rows.shape[1])


def test_spread_out_by_hand() -> None:
    """Two rows at 60 degrees in the plane: mean 1/2, mean square 1/4, which is below 1/2."""
    rows = torch.tensor([[2.0, 0.0], [1.0, 3.0**0.5]])
    assert float(spread_out_loss(rows)) == pytest.approx(1 / 4)
    assert float(spread_out_loss(torch.ones(2, 3))) == pytest.approx(1 + 2 / 3)
    assert float(spread_out_loss(torch.eye(3))) == 0.0
    assert float(spread_out_loss(torch.ones(1, 3))) == 0.0


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 0], [5, 5, 5, 5, 5]])
def test_spread_out_in_a_slow_loop(ids: list[int]) -> None:
    rows = torch.randn(5, 8) + 0.5
    found = float(spread_out_loss(rows, torch.tensor(ids)))
    assert found == pytest.approx(slow_spread_out(rows, ids), abs=1e-6)


def test_gradients_match_finite_differences() -> None:
    first, second = torch.randn(2, 4, 3, dtype=torch.double)
    first.requires_grad_()
    second.requires_grad_()
    ids = torch.tensor([1, 2, 1, 3])
    assert torch.autograd.gradcheck(
        lambda a, b: contrastive_loss(a, b, 0.3, ids) + spread_out_loss(a + 1, ids), (first, second)
    )
