"""Towers compared by the signal-to-noise distance in place of the cosine.

Yuan et al., "Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning", CVPR 2019,
https://arxiv.org/abs/1904.02616, equation 6. The query is the anchor:

    d(q, c) = var(c - q) / var(q),  var over the E coordinates

Centred vectors have no part along (1, ..., 1), so the paper's penalty on their means is zero.
Written longer they give the distance as an inner product, which any index of products searches:

    query [q, 1] / |q|^2,  candidate [c, -|c|^2 / 2],  product = (1 - d(q, c)) / 2

Shape letters: N vectors, B queries, U items, E width.
"""

import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.models.two_tower import TwoTower


def anchors(points_NE: Tensor) -> Tensor:
    """Return queries, (N, E + 1)."""
    centred_NE = points_NE - points_NE.mean(1, keepdim=True)
    power_N1 = centred_NE.square().sum(1, keepdim=True).clamp(min=1e-12)
    return torch.cat([centred_NE, torch.ones_like(power_N1)], dim=1) / power_N1


def compared(points_NE: Tensor) -> Tensor:
    """Return candidates, (N, E + 1)."""
    centred_NE = points_NE - points_NE.mean(1, keepdim=True)
    return torch.cat([centred_NE, -centred_NE.square().sum(1, keepdim=True) / 2], dim=1)


class SnrTower(TwoTower):
    """A two-tower of `geometry: dot`, whose number of each item's own is -|c|^2 / 2."""

    def _placed(self, raw_NR: Tensor) -> Tensor:
        return compared(raw_NR[:, :-1])

    def _queries(self, query_BV: Tensor, items_UE: Tensor, history: Jagged) -> Tensor:
        return anchors(super()._queries(query_BV, items_UE, history)[:, :-1])
