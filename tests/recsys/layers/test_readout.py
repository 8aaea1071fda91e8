"""What a query takes from the items of its session: sums by hand, whole and step by step."""

import math

import pytest
import torch
from torch import Tensor

from recsys.layers.packed_attention import Blocks
from recsys.layers.readout import ItemReadout

BLOCKS: Blocks = ((2, 1), (2, 4), (1, 6))
LENGTHS = [1, 1, 4, 4, 6]


def readout(dropout: float = 0.0) -> ItemReadout:
    torch.manual_seed(2)
    return ItemReadout(5, dropout)


def steps() -> tuple[Tensor, Tensor]:
    states, points = torch.randn(2, sum(LENGTHS), 5, generator=torch.Generator().manual_seed(1))
    return states * 3, points


def by_hand(layer: ItemReadout, states: Tensor, points: Tensor, causal: bool) -> Tensor:
    """One session, a step at a time."""
    ask, answer = layer.shares.weight.chunk(2)
    rows = []
    for step in range(len(states)):
        seen = slice(0, step + 1) if causal else slice(None)
        weight = [
            math.exp(float(((ask @ states[step]) @ (answer @ other)).detach()) / math.sqrt(5))
            for other in states[seen]
        ]
        parts = zip(weight, points[seen], strict=True)
        mean = sum((w * point for w, point in parts), torch.zeros(5)) / sum(weight)
        rows.append(layer.state.weight @ states[step] + math.sqrt(5) * mean)
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [True, False])
def test_shares_of_the_items_by_hand(causal: bool) -> None:
    layer, (states, points) = readout(), steps()
    found = layer(states, points, BLOCKS, causal=causal)
    parts = zip(states.split(LENGTHS), points.split(LENGTHS), strict=True)
    expected = torch.cat([by_hand(layer, *part, causal) for part in parts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    for weight in layer.parameters():
        assert weight.grad is not None
        assert float(weight.grad.abs().max()) > 0


@pytest.mark.parametrize("cuts", [[6], [1, 5], [3, 1, 2], [0, 6]])
def test_a_session_that_goes_on_is_the_whole_session(cuts: list[int]) -> None:
    layer, (states, points) = readout(), steps()
    states, points = states[-6:], points[-6:]
    known, found = states.new_zeros(0, 2, 1, 5), []
    with torch.no_grad():
        for some, of_items in zip(states.split(cuts), points.split(cuts), strict=True):
            if len(some):
                out, known = layer.extend(some, of_items, known)
                found.append(out)
        assert known.shape == (6, 2, 1, 5)
        expected = layer(states, points, ((1, 6),))
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-4)


def test_items_are_thinned_out_in_training_alone() -> None:
    layer, (states, points) = readout(dropout=0.5), steps()
    assert not torch.equal(layer(states, points, BLOCKS), layer(states, points, BLOCKS))
    layer.eval()
    assert torch.equal(layer(states, points, BLOCKS), readout()(states, points, BLOCKS))


def test_half_precision_is_coarse_and_no_more() -> None:
    layer, (states, points) = readout(), steps()
    exact = layer(states, points, BLOCKS)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = layer(states, points, BLOCKS)
    assert coarse.dtype == torch.float32
    off = (coarse - exact).detach().abs().max()
    assert 0 < float(off) < 0.1 * float(exact.detach().abs().max())
    coarse.sum().backward()
