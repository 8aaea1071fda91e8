"""Dropout by bytes is dropout: what it keeps, how much, and what flows back."""

import pytest
import torch

from recsys.layers.dropout import ByteDropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_a_share_is_dropped_and_the_rest_makes_up_for_it(p: float) -> None:
    torch.manual_seed(0)
    thinned = ByteDropout(p).train()(torch.ones(400, 250))
    share = round(p * 256) / 256
    kept = thinned[thinned != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)))
    dropped = 1 - len(kept) / thinned.numel()
    assert abs(dropped - share) < 4 * (share * (1 - share) / thinned.numel()) ** 0.5


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (0, 4), (2, 3, 9)])
def test_any_shape_in_any_precision(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = torch.full(shape, 3.0, dtype=dtype)
        thinned = ByteDropout(0.5).train()(x)
        assert thinned.shape == x.shape
        assert thinned.dtype == dtype
        assert set(thinned.flatten().tolist()) <= {0.0, 6.0}


def test_what_was_dropped_has_no_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(30, 10, requires_grad=True)
    thinned = ByteDropout(0.5).train()(x)
    thinned.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(thinned == 0, 0.0, 2.0))


def test_nothing_is_dropped_when_served_or_at_0() -> None:
    x = torch.randn(30, 10)
    assert ByteDropout(0.5).eval()(x) is x
    assert ByteDropout(0.0).train()(x) is x


def test_the_seed_says_what_is_dropped() -> None:
    dropout, x = ByteDropout(0.5).train(), torch.ones(100)
    torch.manual_seed(1)
    one, other = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), one)
    assert not torch.equal(one, other)


def test_nearly_everything_may_be_dropped() -> None:
    torch.manual_seed(0)
    thinned = ByteDropout(0.9999).train()(torch.ones(100_000))
    assert torch.isfinite(thinned).all()
    assert 0 < int((thinned != 0).sum()) < 1000
