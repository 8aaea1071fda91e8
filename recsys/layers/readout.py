"""What a session's query takes from the items of the session themselves.

Hou et al., "CORE: Simple and Effective Session-based Recommendation within Consistent
Representation Space", SIGIR 2022, https://arxiv.org/abs/2204.11067, its representation-consistent
encoder: a session is a weighted mean of the vectors of its items, so that it is among the items
that it is compared with, and what is like them is near from the first step of training on. Here
the mean is next to what the encoder makes of the session, and each step has one of its own.

Shape letters: T steps in all, D width, M new steps of one session, K steps before them.
"""

import math

import torch
from torch import Tensor, nn

from recsys.layers.dropout import ByteDropout
from recsys.layers.packed_attention import (
    Blocks,
    attention_that_goes_on,
    packed_attention,
    padded_attention,
)


class ItemReadout(nn.Module):
    """W state_t + sqrt(D) sum_s a_ts point_s, the shares a_ts from the states of t and s."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.state = nn.Linear(dim, dim, bias=False)
        self.shares = nn.Linear(dim, 2 * dim, bias=False)
        self.dropout = ByteDropout(dropout)
        self.scale = math.sqrt(dim)  # a normalised state is about so long, a point about 1

    def forward(
        self, states_TD: Tensor, points_TD: Tensor, blocks: Blocks, *, causal: bool = True
    ) -> Tensor:
        """Return (T, D) float32 of encoded steps (T, D) and their items (T, D).

        Steps are ordered as in `blocks` (`recsys.layers.packed_attention`); causal: each takes from
        itself and those before it, else from all of its session.
        """
        asked_T31D = self._asked(states_TD, points_TD)
        return self._joined(states_TD, packed_attention(asked_T31D, blocks, causal=causal))

    def extend(
        self, states_MD: Tensor, points_MD: Tensor, past_K21D: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (M, D) of the steps that come after those of `past_K21D`, and it with theirs."""
        asked_M31D = self._asked(states_MD, points_MD)
        mixed_MD, known = attention_that_goes_on(asked_M31D, past_K21D)
        return self._joined(states_MD, mixed_MD), known

    def padded(self, states_BMD: Tensor, points_BMD: Tensor) -> Tensor:
        """Return (B, M, D) float32 of sessions that are padded at their ends: causal `forward`."""
        asked_T31D = self._asked(states_BMD.flatten(0, 1), points_BMD.flatten(0, 1))
        mixed_BMD = padded_attention(asked_T31D.unflatten(0, states_BMD.shape[:2]))
        return self._joined(states_BMD, mixed_BMD)

    def _asked(self, states_TD: Tensor, points_TD: Tensor) -> Tensor:
        """Return queries, keys and values of one head, (T, 3, 1, D)."""
        shares_T2D = self.shares(states_TD).unflatten(1, (2, -1))
        points_T1D = self.dropout(points_TD)[:, None].to(shares_T2D.dtype)
        return torch.cat([shares_T2D, points_T1D], dim=1)[:, :, None]

    def _joined(self, states_TD: Tensor, mixed_TD: Tensor) -> Tensor:
        out: Tensor = self.state(states_TD).float() + self.scale * mixed_TD.float()
        return out
