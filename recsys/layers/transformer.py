"""A transformer over sessions of unlike length: packed, so that no step of work is padding.

Vaswani et al., "Attention Is All You Need", NIPS 2017, section 3; normalised before each part
(Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020); gated as in
Shazeer, "GLU Variants Improve Transformer", 2020, https://arxiv.org/abs/2002.05202; ReLU squared
as in So et al., "Primer", NeurIPS 2021, section 3; rotary positions as in Su et al., "RoFormer",
2021, https://arxiv.org/abs/2104.09864, section 3.2.

Steps are in one matrix, those of equally long sessions side by side: all but attention works on
the matrix, and attention on each length's block, a view of it.

A session that grows step by step is not encoded again each time: `Transformer.extend` keeps keys
and values of the steps that were, which later steps do not change.

Shape letters: T steps in all, D width, H heads, A = D / H width of a head, N sessions of a block,
L their length, M new steps of one session, K steps before them, S = K + M.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.dropout import ByteDropout
from recsys.layers.packed_attention import (
    Blocks,
    attention_that_goes_on,
    packed_attention,
    padded_attention,
)
from recsys.layers.transformer_config import TransformerConfig

Cache = tuple[Tensor, ...]
"""Keys and values of one session's steps, (K, 2, H, A) float for each block."""
_ROTARY_BASE = 100.0
"""Sessions are hundreds of steps long, not the tens of thousands that language models read."""


@dataclass(frozen=True)
class Packing:
    """The places of the steps of sessions when equally long sessions are together.

    order (T,) int64: the step at each place; place (T,) int64: its inverse. position
    (T,) int64: how many steps of its session come before the step at each place. blocks: number
    of sessions and their length, in the order of the places.
    """

    order: Tensor
    place: Tensor
    position: Tensor
    blocks: Blocks

    @classmethod
    def of(cls, offsets: Tensor) -> "Packing":
        """Pack sessions of which number b holds the steps offsets[b]..offsets[b + 1] - 1."""
        lengths, device = offsets.diff(), offsets.device
        by_length = lengths.argsort(stable=True)
        sizes, counts = lengths[by_length].unique_consecutive(return_counts=True)
        starts = offsets[:-1][by_length]
        lengths = lengths[by_length]
        num_steps = int(offsets[-1] - offsets[0])
        ends = lengths.cumsum(0)
        position = torch.arange(num_steps, device=device)
        position = position - torch.repeat_interleave(
            ends - lengths, lengths, output_size=num_steps
        )
        order = torch.repeat_interleave(starts, lengths, output_size=num_steps) + position
        place = torch.empty_like(order)
        place[order] = torch.arange(num_steps, device=device)
        blocks = tuple((n, size) for size, n in zip(sizes.tolist(), counts.tolist(), strict=True))
        return cls(order, place, position, tuple(block for block in blocks if block[1]))


class Transformer(nn.Module):
    """Blocks of attention and feed-forward parts over packed sessions."""

    def __init__(self, config: TransformerConfig, dim: int) -> None:
        super().__init__()
        config.check_width(dim)
        self.config = config
        self.blocks = nn.ModuleList(_Block(config, dim) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, steps_TD: Tensor, packing: Packing, *, causal: bool = True) -> Tensor:
        """Return (T, D) float of steps (T, D) ordered as in `packing`.

        causal: a step attends to itself and to those before it in its session, else to all of it.
        """
        rotation = self._rotation(packing.position)
        for block in self.blocks:
            steps_TD = block(steps_TD, packing.blocks, rotation, causal)
        out: Tensor = self.norm(steps_TD)
        return out

    def padded(self, steps_BMD: Tensor) -> Tensor:
        """Return (B, M, D) float of sessions that are padded at their ends: causal `forward`."""
        sessions, longest = steps_BMD.shape[:2]
        rotation = self._rotation(torch.arange(longest).repeat(sessions))
        for block in self.blocks:
            assert isinstance(block, _Block)
            steps_BMD = block.padded(steps_BMD, rotation)
        out: Tensor = self.norm(steps_BMD)
        return out

    def no_steps(self) -> Cache:
        """Return the cache of a session without a step."""
        weight, heads = self.norm.weight, self.config.num_heads
        return (weight.new_zeros(0, 2, heads, len(weight) // heads),) * self.config.num_blocks

    def extend(self, steps_MD: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return (M, D) float of the steps that come after those of `cache`, and a longer cache.

        They are what causal `forward` gives for the last M steps of the whole session, for the
        work of M steps that attend to K + M. `cache` stays as it is.
        """
        before = len(cache[0])
        rotation = self._rotation(
            torch.arange(before, before + len(steps_MD), device=steps_MD.device)
        )
        longer = []
        for block, past in zip(self.blocks, cache, strict=True):
            assert isinstance(block, _Block)
            steps_MD, past = block.extend(steps_MD, past, rotation)
            longer.append(past)
        out: Tensor = self.norm(steps_MD)
        return out, tuple(longer)

    def _rotation(self, position_T: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cosines and sines (T, 1, 1, A / 2) of the angles of each position, if any turn."""
        if self.config.positions != "rotary":
            return None
        half = len(self.norm.weight) // self.config.num_heads // 2
        speed = _ROTARY_BASE ** (-torch.arange(half, device=position_T.device) / half)
        angle = (position_T[:, None] * speed)[:, None, None]
        return angle.cos(), angle.sin()


class _Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, config: TransformerConfig, dim: int) -> None:
        super().__init__()
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = _Attention(config.num_heads, dim)
        self.feedforward = _FeedForward(config, dim)
        self.dropout = ByteDropout(config.dropout)

    def forward(
        self,
        x_TD: Tensor,
        blocks: Blocks,
        rotation: tuple[Tensor, Tensor] | None,
        causal: bool,
    ) -> Tensor:
        attended = self.attention(self.attention_norm(x_TD), blocks, rotation, causal)
        return self._joined(x_TD, attended)

    def extend(
        self, x_MD: Tensor, past_K2HA: Tensor, rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        attended, past_K2HA = self.attention.extend(self.attention_norm(x_MD), past_K2HA, rotation)
        return self._joined(x_MD, attended), past_K2HA

    def padded(self, x_BMD: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        attended_BMD = self.attention.padded(self.attention_norm(x_BMD), rotation)
        return self._joined(x_BMD.flatten(0, 1), attended_BMD.flatten(0, 1)).view_as(x_BMD)

    def _joined(self, x_TD: Tensor, attended_TD: Tensor) -> Tensor:
        x_TD = x_TD + self.dropout(attended_TD)
        out: Tensor = x_TD + self.dropout(self.feedforward(self.feedforward_norm(x_TD)))
        return out


class _Attention(nn.Module):
    def __init__(self, num_heads: int, dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x_TD: Tensor,
        blocks: Blocks,
        rotation: tuple[Tensor, Tensor] | None,
        causal: bool,
    ) -> Tensor:
        qkv_T3HA = self._heads(x_TD, rotation)
        out: Tensor = self.out(packed_attention(qkv_T3HA, blocks, causal=causal))
        return out

    def extend(
        self, x_MD: Tensor, past_K2HA: Tensor, rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return what M more steps gather, (M, D), and the keys and values of all S."""
        mixed_MD, known_S2HA = attention_that_goes_on(self._heads(x_MD, rotation), past_K2HA)
        return self.out(mixed_MD), known_S2HA

    def padded(self, x_BMD: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return what each step gathers, (B, M, D), from itself and those before it."""
        heads_T3HA = self._heads(x_BMD.flatten(0, 1), rotation)
        heads_BM3HA = heads_T3HA.unflatten(0, x_BMD.shape[:2])
        out: Tensor = self.out(padded_attention(heads_BM3HA))
        return out

    def _heads(self, x_TD: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return queries, keys and values of each head, (T, 3, H, A), turned where asked."""
        qkv_T3HA: Tensor = self.qkv(x_TD).unflatten(1, (3, self.num_heads, -1))
        if rotation is None:
            return qkv_T3HA
        turned = _turned(qkv_T3HA[:, :2], rotation)
        return torch.cat([turned.to(qkv_T3HA.dtype), qkv_T3HA[:, 2:]], dim=1)


class _FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig, dim: int) -> None:
        super().__init__()
        self.activation = config.activation
        gated = config.activation == "swiglu"
        inside = max(1, round(dim * config.feedforward * (2 / 3 if gated else 1)))
        self.up = nn.Linear(dim, inside * (2 if gated else 1), bias=False)
        self.down = nn.Linear(inside, dim, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        inside = self.up(x_TD)
        if self.activation == "swiglu":
            gate, value = inside.chunk(2, dim=1)
            inside = F.silu(gate) * value
        else:
            inside = F.gelu(inside) if self.activation == "gelu" else F.relu(inside).square()
        out: Tensor = self.down(inside)
        return out


def _turned(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i + A / 2}) of the last axis by its angle."""
    cosine, sine = rotation
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
