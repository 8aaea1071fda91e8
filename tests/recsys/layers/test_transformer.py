"""Packed sessions against sessions one by one, head by head, step by step."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from recsys.layers import packed_attention as attention
from recsys.layers.transformer import Packing, Transformer, TransformerConfig

LENGTHS = [3, 0, 1, 5, 3, 2, 0, 7]
SOME_LENGTHS = st.lists(st.integers(0, 6), min_size=0, max_size=7)
POSITIONS = ["rotary", "none"]  # learned ones are added before


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def transformer(dim: int = 8, **changes: Any) -> Transformer:
    torch.manual_seed(1)
    config = TransformerConfig(**{"dropout": 0.0, "feedforward": 2.0, **changes})
    model = Transformer(config, dim)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def packed(model: Transformer, x_TD: Tensor, lengths: list[int], causal: bool = True) -> Tensor:
    packing = Packing.of(offsets_of(lengths))
    found: Tensor = model(x_TD[packing.order], packing, causal=causal)[packing.place]
    return found


def normalised(x_TD: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x_TD - x_TD.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def turned(x_A: Tensor, place: int) -> Tensor:
    """Pairs of numbers as complex ones, turned by `place` times their own angle."""
    half = len(x_A) // 2
    angles = torch.tensor([place * 100.0 ** (-i / half) for i in range(half)], dtype=x_A.dtype)
    product = torch.complex(x_A[:half], x_A[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([product.real, product.imag])


def slow_attention(model: Transformer, block: Any, x_LD: Tensor, causal: bool) -> Tensor:
    heads = model.config.num_heads
    length, dim = x_LD.shape
    weight = block.attention.qkv.weight.view(3, heads, dim // heads, dim)
    rotary = model.config.positions == "rotary"
    rows = []
    for step in range(length):
        mixed = []
        for head in range(heads):
            query = weight[0, head] @ x_LD[step]
            query = turned(query, step) if rotary else query
            seen = range(step + 1) if causal else range(length)
            keys = [weight[1, head] @ x_LD[other] for other in seen]
            keys = [turned(k, o) for k, o in zip(keys, seen, strict=True)] if rotary else keys
            powers = [torch.exp(query @ key / math.sqrt(len(key))) for key in keys]
            values = [weight[2, head] @ x_LD[other] for other in seen]
            mixed.append(sum(p * v for p, v in zip(powers, values, strict=True)) / sum(powers))
        rows.append(block.attention.out.weight @ torch.cat(mixed))
    return torch.stack(rows)


def slow_feedforward(block: Any, activation: str, x_LD: Tensor) -> Tensor:
    inside = x_LD @ block.feedforward.up.weight.T
    if activation == "swiglu":
        half = inside.shape[1] // 2
        gate = inside[:, :half]
        inside = gate * torch.sigmoid(gate) * inside[:, half:]
    elif activation == "gelu":
        inside = inside * (1 + torch.erf(inside / math.sqrt(2))) / 2
    else:
        inside = torch.where(inside > 0, inside * inside, 0.0)
    return inside @ block.feedforward.down.weight.T


def slow(model: Transformer, x_TD: Tensor, lengths: list[int], causal: bool) -> Tensor:
    """Return the states of the steps, one session after the other."""
    parts = [x_TD[:0]]
    for start, stop in pairwise(offsets_of(lengths).tolist()):
        if start == stop:
            continue
        x_LD = x_TD[start:stop]
        for block in model.blocks:
            attended = normalised(x_LD, block.attention_norm)  # type: ignore[arg-type]
            x_LD = x_LD + slow_attention(model, block, attended, causal)
            inside = normalised(x_LD, block.feedforward_norm)  # type: ignore[arg-type]
            x_LD = x_LD + slow_feedforward(block, model.config.activation, inside)
        parts.append(normalised(x_LD, model.norm))
    return torch.cat(parts)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("activation", ["swiglu", "gelu", "relu2"])
def test_packed_sessions_are_sessions_one_by_one_with_their_gradients(
    activation: str, positions: str, causal: bool
) -> None:
    model = transformer(activation=activation, positions=positions)
    weight = torch.randn(sum(LENGTHS), 8)
    results = []
    for way in (packed, slow):
        torch.manual_seed(2)
        x_TD = torch.randn(sum(LENGTHS), 8, requires_grad=True)
        model.zero_grad()
        out = way(model, x_TD, LENGTHS, causal)
        (out * weight).sum().backward()
        gradients = [p.grad for p in (x_TD, *model.parameters())]
        results.append([out.detach(), *gradients])
    for one, other in zip(*results, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("dim", "heads", "blocks"), [(6, 1, 1), (12, 3, 3), (8, 4, 1), (2, 1, 2)])
def test_odd_sizes(dim: int, heads: int, blocks: int) -> None:
    model = transformer(dim, num_heads=heads, num_blocks=blocks, positions="rotary")
    x_TD = torch.randn(sum(LENGTHS), dim)
    torch.testing.assert_close(packed(model, x_TD, LENGTHS), slow(model, x_TD, LENGTHS, True))


@given(SOME_LENGTHS, st.randoms(use_true_random=False), st.sampled_from(POSITIONS))
@settings(max_examples=40)
def test_other_sessions_and_their_order_change_nothing(
    lengths: list[int], random: Any, positions: str
) -> None:
    model = transformer(positions=positions)
    x_TD = torch.randn(sum(lengths), 8, generator=torch.Generator().manual_seed(3))
    parts = x_TD.split(lengths) if lengths else ()
    together = packed(model, x_TD, lengths).split(lengths) if lengths else ()
    order = list(range(len(lengths)))
    random.shuffle(order)
    shuffled = [lengths[n] for n in order]
    moved = torch.cat([parts[n] for n in order]) if order else x_TD
    again = packed(model, moved, shuffled).split(shuffled) if order else ()
    for place, number in enumerate(order):
        torch.testing.assert_close(again[place], together[number])
        alone = packed(model, parts[number], [lengths[number]])
        torch.testing.assert_close(alone, together[number])


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_later_step_is_seen_by_none_before_it_unless_all_see_all(positions: str) -> None:
    model = transformer(positions=positions)
    x_TD = torch.randn(9, 8)
    lengths = [2, 6, 1]
    for changed in range(2, 8):
        other = x_TD.clone()
        other[changed, 0] += 3
        difference = (packed(model, other, lengths) - packed(model, x_TD, lengths)).abs().amax(1)
        assert (difference[:changed] == 0).all()
        assert (difference[changed:8] > 1e-4).all()
        assert difference[8] == 0
        both = [packed(model, one, lengths, causal=False) for one in (x_TD, other)]
        difference = (both[0] - both[1]).abs().amax(1)
        assert (difference[2:8] > 1e-5).all()
        assert (difference[[0, 1, 8]] == 0).all()


def test_rotary_attention_sees_distances_alone() -> None:
    model = transformer(positions="rotary").requires_grad_(False)
    x_TD, packing = torch.randn(6, 8), Packing.of(torch.tensor([0, 6]))
    here = model(x_TD, packing)
    later = model(x_TD, replace(packing, position=packing.position + 37))
    torch.testing.assert_close(here, later, rtol=1e-4, atol=1e-5)
    apart = model(x_TD, replace(packing, position=2 * packing.position))
    assert float((here - apart)[1:].abs().amax(1).min()) > 1e-3
    torch.testing.assert_close(here[0], apart[0])


def test_without_positions_the_order_of_what_came_first_is_not_known() -> None:
    x_TD = torch.randn(4, 8)
    swapped = x_TD[[2, 1, 0, 3]]
    for positions, knows in (("none", False), ("rotary", True)):
        # One block: in a second one those that came first would have seen each other in order.
        model = transformer(positions=positions, num_blocks=1).requires_grad_(False)
        difference = (packed(model, x_TD, [4]) - packed(model, swapped, [4]))[3].abs().max()
        assert (float(difference) > 1e-3) is knows


def test_where_steps_lie_by_hand() -> None:
    packing = Packing.of(torch.tensor([0, 3, 3, 4, 9, 12]))
    assert packing.blocks == ((1, 1), (2, 3), (1, 5))
    assert packing.order.tolist() == [3, 0, 1, 2, 9, 10, 11, 4, 5, 6, 7, 8]
    assert packing.order[packing.place].tolist() == list(range(12))
    assert packing.position.tolist() == [0, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
@pytest.mark.parametrize("positions", POSITIONS)
def test_nothing_but_empty_sessions(lengths: list[int], positions: str) -> None:
    packing = Packing.of(offsets_of(lengths))
    assert packing.blocks == ()
    x_TD = torch.zeros(0, 8, requires_grad=True)
    out = transformer(positions=positions)(x_TD, packing)
    assert out.shape == (0, 8)
    out.sum().backward()


def test_a_gate_has_the_weights_of_a_wider_layer_without() -> None:
    counts = {
        kind: sum(p.numel() for p in transformer(12, activation=kind, feedforward=4.0).parameters())
        for kind in ("swiglu", "gelu", "relu2")
    }
    assert len(set(counts.values())) == 1
    # Of each of two blocks: queries, keys, values and what joins the heads, the two layers inside,
    # and two normalisations; and the last normalisation.
    assert counts["gelu"] == 2 * (4 * 12 * 12 + 2 * 12 * 48 + 2 * 24) + 24
    assert transformer(2, feedforward=0.1, num_heads=1).blocks[0].feedforward.up.out_features == 2


def test_dropout_thins_out_both_parts_of_a_block_in_training_alone() -> None:
    model = transformer(dropout=0.5)
    x_TD = torch.randn(6, 8)
    assert torch.equal(packed(model, x_TD, [6]), packed(model, x_TD, [6]))
    model.train()
    assert not torch.equal(packed(model, x_TD, [6]), packed(model, x_TD, [6]))
    for dead in ("attention.out", "feedforward.down"):  # what is left alive is thinned out, too
        model = transformer(dropout=0.5, num_blocks=1).train()
        nn.init.zeros_(model.blocks[0].get_submodule(dead).weight)  # type: ignore[arg-type]
        assert not torch.equal(packed(model, x_TD, [6]), packed(model, x_TD, [6]))


def test_half_precision_is_coarse_and_no_more() -> None:
    model = transformer(positions="rotary").requires_grad_(False)
    x_TD = torch.randn(sum(LENGTHS), 8)
    exact = packed(model, x_TD, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = packed(model, x_TD, LENGTHS)
    assert 0 < float((coarse - exact).abs().max()) < 0.2


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.sampled_from(POSITIONS))
@settings(max_examples=40)
def test_a_session_that_goes_on_is_the_whole_session(pieces: list[int], positions: str) -> None:
    model = transformer(positions=positions)
    x_TD = torch.randn(sum(pieces), 8, generator=torch.Generator().manual_seed(4))
    whole = packed(model, x_TD, [sum(pieces)])
    cache, found = model.no_steps(), []
    for piece in x_TD.split(pieces):
        before = [one.clone() for one in cache]
        out, longer = model.extend(piece, cache)
        assert all(torch.equal(one, other) for one, other in zip(before, cache, strict=True))
        assert [len(one) for one in longer] == [len(cache[0]) + len(piece)] * 2
        found.append(out)
        cache = longer
    torch.testing.assert_close(torch.cat(found), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_heads": 3}, "a width of 8 does not part into 3 heads: take a multiple of 3"),
        (
            {"num_heads": 8, "positions": "rotary"},
            "a width of 8 does not part into 8 heads of even width: take a multiple of 16",
        ),
    ],
)
def test_a_width_that_heads_do_not_share_is_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transformer(TransformerConfig(**config), 8)
    TransformerConfig(num_heads=8).check_width(8)


def test_an_inside_of_no_width_is_refused() -> None:
    with pytest.raises(ValidationError, match="feedforward is a multiple of the width: 1 to 4 are"):
        TransformerConfig(feedforward=0.05)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("blocks", [((2, 1), (3, 4), (1, 7)), ((4, 3),), ((3, 1),)])
def test_attention_of_the_cpu_is_that_of_the_library(
    blocks: attention.Blocks, causal: bool
) -> None:
    total = sum(n * length for n, length in blocks)
    weight = torch.randn(total, 10)
    results = []
    for own in (True, False):
        torch.manual_seed(5)
        qkv = torch.randn(total, 3, 2, 5, requires_grad=True)
        if own:
            out = attention.packed_attention(qkv, blocks, causal=causal)
        else:
            sizes = [n * length for n, length in blocks]
            parts = zip(qkv.split(sizes), blocks, strict=True)
            out = torch.cat([attention._by_library(p, *block, causal) for p, block in parts])
        (out * weight).sum().backward()
        results.append((out.detach(), qkv.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_attention_meet_finite_differences(causal: bool) -> None:
    qkv = torch.randn(2 * 3 + 2, 3, 2, 2, dtype=torch.double, requires_grad=True)

    def mixed(qkv: Tensor) -> Tensor:
        return attention.packed_attention(qkv, ((2, 1), (2, 3)), causal=causal)

    assert torch.autograd.gradcheck(mixed, qkv)


def test_a_lone_step_attends_to_itself() -> None:
    qkv = torch.randn(3, 3, 2, 4)
    out = attention.packed_attention(qkv, ((3, 1),), causal=False)
    assert torch.equal(out, qkv[:, 2].flatten(1))
