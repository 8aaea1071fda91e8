"""The fused hidden layer against its formula in double precision, and torch's operators."""

import math

import pytest
import torch
from torch import Tensor, nn

from recsys.core.native import native_library
from recsys.layers import norm
from recsys.layers.mlp import mlp
from recsys.layers.normed_relu import SOURCE, can_fuse, normed

pytestmark = pytest.mark.skipif(native_library(SOURCE) is None, reason="no C++ compiler")
EPS = 1e-5


def drawn(rows: int, width: int, offset: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(rows, width) * 3 + offset
    weight, bias = torch.randn(width), torch.randn(width)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def by_formula(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """Algorithm 1 of Ioffe and Szegedy in double precision."""
    x = x.double()
    centred = x - x.mean(0)
    y = centred / (centred.square().mean(0) + EPS).sqrt() * weight.double() + bias.double()
    return y.relu() if relu else y


@pytest.mark.parametrize(("rows", "width"), [(2, 1), (31, 7), (32, 16), (33, 400), (1000, 33)])
@pytest.mark.parametrize("relu", [True, False])
def test_output_statistics_and_gradients_are_those_of_the_formula(
    rows: int, width: int, relu: bool
) -> None:
    torch.manual_seed(rows)
    inputs = drawn(rows, width)
    found, mean, variance = normed(*inputs, EPS, relu=relu)
    expected = by_formula(*inputs, relu)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean, inputs[0].mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance, inputs[0].var(0), rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, upstream)
    wanted = torch.autograd.grad(expected, inputs, upstream.double())
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


def test_a_large_mean_costs_no_digits() -> None:
    x, weight, bias = drawn(4096, 5, offset=3000.0)
    found, _, variance = normed(x, weight, bias, EPS)
    torch.testing.assert_close(
        found.double(), by_formula(x, weight, bias, relu=False), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(variance, x.double().var(0).float(), rtol=1e-5, atol=0)


def test_a_constant_column_gives_its_bias_and_no_gradient() -> None:
    x = torch.full((64, 2), 7.0, requires_grad=True)
    weight, bias = torch.ones(2), torch.tensor([0.5, -0.5])
    found, _, variance = normed(x, weight, bias, EPS, relu=True)
    assert torch.equal(found, torch.tensor([0.5, 0.0]).expand(64, 2))
    assert torch.equal(variance, torch.zeros(2))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert float(gradient.detach().abs().max()) < 1e-3


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.93])
def test_dropout_keeps_the_share_that_it_says_independently_of_place_row_and_call(
    dropout: float,
) -> None:
    torch.manual_seed(1)
    x, weight, _ = drawn(3000, 40)
    bias = torch.full((40,), 100.0)  # nothing is negative: zeros are dropout's
    plain, *_ = normed(x, weight, bias, EPS, relu=True)
    first, *_ = normed(x, weight, bias, EPS, relu=True, dropout=dropout)
    second, *_ = normed(x, weight, bias, EPS, relu=True, dropout=dropout)
    kept, again = (first > 0).double(), (second > 0).double()
    torch.testing.assert_close(first, plain * kept.float() / (1 - dropout))
    deviation = math.sqrt(dropout * (1 - dropout))
    assert abs(float(kept.mean()) - (1 - dropout)) < 5 * deviation / math.sqrt(kept.numel())
    for axis in (0, 1):
        count = kept.shape[axis]
        off = (kept.mean(axis) - (1 - dropout)).abs().max()
        assert float(off) < 5.5 * deviation / math.sqrt(count)
    centred, other = kept - (1 - dropout), again - (1 - dropout)
    for one, two in (
        (centred, other),
        (centred[1:], centred[:-1]),
        (centred[:, 1:], centred[:, :-1]),
    ):
        error = deviation**2 / math.sqrt(one.numel())
        assert abs(float((one * two).mean())) < 5 * error


def test_the_gradient_passes_where_the_output_did() -> None:
    torch.manual_seed(2)
    inputs = drawn(50, 8)
    found, *_ = normed(*inputs, EPS, relu=True, dropout=0.4)
    kept = (found > 0).double() / 0.6
    expected = by_formula(*inputs, relu=False) * kept
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream.double()),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_seed_and_any_number_of_threads_give_the_same() -> None:
    inputs = drawn(101, 9)
    upstream = torch.randn(101, 9)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(3)
        try:
            y, *statistics = normed(*inputs, EPS, relu=True, dropout=0.3)
            results.append((y, *statistics, *torch.autograd.grad(y, inputs, upstream)))
        finally:
            torch.set_num_threads(1)
    torch.testing.assert_close(results[0], results[1])


def test_a_value_that_is_not_finite_spoils_its_column_and_no_other() -> None:
    x, weight, bias = drawn(40, 6)
    spoilt = x.detach().clone()
    spoilt[7, 2] = float("nan")
    found, *_ = normed(spoilt, weight, bias, EPS, relu=True)
    assert found[:, 2].isnan().all()
    others = torch.arange(6) != 2
    assert torch.equal(found[:, others], normed(x, weight, bias, EPS, relu=True)[0][:, others])


def test_rows_that_lie_apart_and_half_precision_are_taken() -> None:
    x, weight, bias = drawn(20, 30)
    apart = x.detach().T.contiguous().T
    assert torch.equal(normed(apart, weight, bias, EPS)[0], normed(x, weight, bias, EPS)[0])
    half = x.detach().bfloat16()
    assert can_fuse(half)
    assert not can_fuse(x.double())
    assert normed(half, weight, bias, EPS)[0].dtype == torch.float32


def test_a_perceptron_is_that_of_torchs_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    layers = mlp(6, (16, 8), 3, dropout=0.0, norm="batch")
    x = torch.randn(64, 6)
    results = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(norm, "can_fuse", lambda _: False)
        for module in layers:
            if isinstance(module, norm.BatchNorm):
                module.running_mean.zero_()
                module.steps.zero_()
        layers.train().zero_grad()
        out = layers(x)
        out.square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in layers.parameters()]
        results.append([out, *gradients, *layers.buffers(), layers.eval()(x)])
        plain = nn.Sequential(*layers)
        torch.testing.assert_close(results[-1][-1], plain(x))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_a_perceptron_in_training_drops_what_it_says_and_none_in_evaluation() -> None:
    layers = mlp(4, (200,), 1, dropout=0.5, norm="batch")[:-1]
    x = torch.randn(500, 4)
    zeros = (layers.train()(x) == 0).double().mean()
    assert 0.7 < float(zeros) < 0.8  # half by ReLU, half of the rest by dropout
    assert torch.equal(layers.eval()(x), layers(x))
