"""Batch normalisation beside torch's, with weights of rows, and what must not move it."""

import pytest
import torch
from torch import Tensor, nn

from recsys.layers.mlp import mlp
from recsys.layers.norm import BatchNorm, rows_weigh, statistics_kept


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def trained(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output and the gradient of x."""
    x = x.clone().requires_grad_()
    y = layer.train()(x)
    (y * torch.arange(5.0) ** 2 + y.square().cos()).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def test_a_step_is_that_of_torch() -> None:
    own, other = BatchNorm(5), nn.BatchNorm1d(5)
    for seed, size in enumerate((64, 17, 2)):
        for mine, theirs in zip(
            trained(own, rows(size, seed)), trained(other, rows(size, seed)), strict=True
        ):
            torch.testing.assert_close(mine, theirs)
    own.eval()
    want = (rows(3) - own.running_mean) / (own.running_var + 1e-5).sqrt()
    torch.testing.assert_close(own(rows(3)), want)


def test_the_running_statistics_are_even_means_first_and_exponential_ones_later() -> None:
    layer = BatchNorm(5).train()
    means = torch.stack([rows(9, seed).mean(0) for seed in range(12)])
    variances = torch.stack([rows(9, seed).var(0) for seed in range(12)])
    for seed in range(12):
        layer(rows(9, seed))
        if seed == 9:
            torch.testing.assert_close(layer.running_mean, means[:10].mean(0))
            torch.testing.assert_close(layer.running_var, variances[:10].mean(0))
    want = 0.9 * (0.9 * means[:10].mean(0) + 0.1 * means[10]) + 0.1 * means[11]
    torch.testing.assert_close(layer.running_mean, want)


def test_weights_of_one_change_nothing() -> None:
    plain, weighted = BatchNorm(5), BatchNorm(5)
    expected = trained(plain, rows(20))
    with rows_weigh(torch.ones(20)):
        found = trained(weighted, rows(20))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(weighted.running_var, plain.running_var)


def test_a_row_of_weight_2_counts_as_two_and_one_of_weight_0_not_at_all() -> None:
    x, weight = rows(8), torch.tensor([2.0, 1, 1, 0, 1, 2, 1, 1])
    layer, twice = BatchNorm(5).train(), BatchNorm(5).train()
    with rows_weigh(weight):
        found = layer(x)
    copies = x.repeat_interleave(weight.long(), dim=0)
    expected = twice(copies)
    torch.testing.assert_close(found[weight > 0], expected[[0, 2, 3, 4, 5, 7, 8]])
    torch.testing.assert_close(layer.running_mean, twice.running_mean)
    moved = x.clone()
    moved[3] = 1e4
    other = BatchNorm(5).train()
    with rows_weigh(weight):
        other(moved)
    torch.testing.assert_close(other.running_var, layer.running_var)


@pytest.mark.parametrize("weight", [None, [1.0], [3.0]])
def test_one_row_alone_is_normalised_as_in_evaluation(weight: list[float] | None) -> None:
    layer = BatchNorm(5)
    trained(layer, rows(30))
    before = layer.running_mean.clone()
    with rows_weigh(None if weight is None else torch.tensor(weight)):
        found = layer.train()(rows(1))
    assert torch.equal(layer.running_mean, before)
    torch.testing.assert_close(found, layer.eval()(rows(1)))
    assert layer.train()(rows(0)).shape == (0, 5)


def test_rows_that_are_no_sample_leave_the_statistics_alone() -> None:
    layer, other = BatchNorm(5), BatchNorm(5)
    expected = trained(other, rows(30))
    with statistics_kept():
        found = trained(layer, rows(30))
    torch.testing.assert_close(found[0], expected[0])  # its own statistics, all the same
    assert torch.equal(layer.running_mean, torch.zeros(5))
    assert float(layer.steps) == 0
    trained(layer, rows(30))
    assert float(layer.steps) == 1


def test_half_precision_has_statistics_of_single_precision() -> None:
    layer, other = BatchNorm(5).train(), BatchNorm(5).train()
    x = rows(4096).bfloat16()
    assert layer(x).dtype == torch.bfloat16
    other(x.float())
    torch.testing.assert_close(layer.running_var, other.running_var)


@pytest.mark.parametrize(("norm", "count"), [("batch", 2), ("layer", 2), ("none", 0)])
def test_every_hidden_layer_of_a_perceptron_is_normalised(norm: str, count: int) -> None:
    layers = mlp(3, (6, 4), 1, dropout=0.0, norm=norm)  # type: ignore[arg-type]
    kinds = {"batch": BatchNorm, "layer": nn.LayerNorm, "none": BatchNorm}[norm]
    assert sum(isinstance(layer, kinds) for layer in layers) == count
    biases = [layer.bias is not None for layer in layers if isinstance(layer, nn.Linear)]
    assert biases == ([False, False, True] if norm == "batch" else [True] * 3)
