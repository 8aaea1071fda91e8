"""Inverse graph convolution: item vectors are moved away from what lies around them.

Jian and Wang, "InvGC: Robust Cross-Modal Retrieval by Inverse Graph Convolution", Findings of
EMNLP 2023, https://arxiv.org/abs/2310.13276. From each item's direction x a mean of others is taken
off, of the items and of earlier queries:

    x' = unit(unit(x - r_g m_g(x)) + unit(x - r_q m_q(x)))

Messages m: `all` weighs every other one by its cosine, less the mean cosine (InvGC); `local` the k
nearest by their cosine (LocalAdj); `mean` takes the k nearest alike (AvgPool). Here a message is
divided by the mean length of all items' messages, so that a rate is the length of what is taken
off. The length of a vector and an item's bias stay as they are.

Shape letters: N items, B others, E width of a direction.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.layers.geometry import Geometry, points_of
from recsys.retrieval.topk import exact_topk

Message = Literal["all", "local", "mean"]
_CHUNK = 2048


def messages(items_NE: Tensor, others_BE: Tensor, message: Message, k: int) -> Tensor:
    """Return the mean of the others around each item, (N, E), of mean length 1.

    Directions; where both are the same, an item is none of its own neighbours. `k`: how many.
    """
    own = items_NE is others_BE
    if message == "all":
        moment = others_BE.T @ others_BE / len(others_BE)
        mean = others_BE.mean(0)
        found = items_NE @ moment - (items_NE.mean(0) @ mean) * mean
    else:
        cosines, rows = exact_topk(items_NE, others_BE, k + own)
        cosines, rows = cosines[:, int(own) :], rows[:, int(own) :]
        weights = cosines if message == "local" else torch.ones_like(cosines)
        parts = zip(weights.split(_CHUNK), rows.split(_CHUNK), strict=True)
        found = torch.cat([torch.einsum("nk,nke->ne", w, others_BE[r]) for w, r in parts]) / k
    return found / found.norm(dim=1).mean()


def spread(
    vectors: Tensor, geometry: Geometry, around: tuple[Tensor, Tensor], rates: tuple[float, float]
) -> Tensor:
    """Return vectors (N, W) moved away from what is around: messages of items, and of queries."""
    points = points_of(vectors, geometry)
    length = points.norm(dim=1, keepdim=True)
    direction = points / length.clamp(min=1e-12)
    moved = [
        F.normalize(direction - rate * one, dim=1) for rate, one in zip(rates, around, strict=True)
    ]
    found = vectors.clone()
    found[:, : points.shape[1]] = F.normalize(moved[0] + moved[1], dim=1) * length
    return found


def skewness(counts: Tensor) -> float:
    """Return the skewness of how often each item is in a list: 0 where all are alike."""
    off = counts.double() - counts.double().mean()
    return float((off**3).mean() / (off**2).mean() ** 1.5)
