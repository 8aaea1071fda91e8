"""Where vectors of queries and items live, and how an inner product there gives the distance.

    sphere   x / |x|            product q . c = 1 - d(q, c)^2 / 2
    biased_sphere               the same, and a number b of each item's own: q . c + b. A cosine
                                alone cannot say that an item is popular with everybody
    dot      x as it is, and a number of each item's own: q . c + b. Nothing is bounded, and a long
             vector is a sure one
    ball     x / max(1, |x|)    Hsieh et al., "Collaborative Metric Learning", WWW 2017, section
                                3.5: bounded, but free to be near the middle

In the ball a product of two points does not order by distance, so points are written longer:

    query [q, 1, -|q|^2 / 2],  candidate [c, -|c|^2 / 2, 1],  product = -d(q, c)^2 / 2

Whatever searches by inner product then searches by distance, and scores of unlike queries compare.
On the biased sphere and with dot they are query [q, 1], candidate [c, b].

Shape letters: N vectors, E width of a point, W width of a vector: E on the sphere, E + 1 on the
biased one and with dot, E + 2 in the ball; R what a candidate tower gives: E + 1 where there is a
bias, else E.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.layers.choices import Geometry

_EXTRA = {"sphere": 0, "biased_sphere": 1, "dot": 1, "ball": 2}
_BIASED = ("biased_sphere", "dot")


def tower_width(dim: int, geometry: Geometry) -> int:
    """Return R, what a candidate tower has to give for points of width `dim`."""
    return dim + (geometry in _BIASED)


def vector_width(dim: int, geometry: Geometry) -> int:
    """Return W for points of width `dim`."""
    return dim + _EXTRA[geometry]


def candidate_vectors(raw_NR: Tensor, geometry: Geometry) -> Tensor:
    """Return the vectors (N, W) of items, whose tower gave `raw_NR`."""
    if geometry == "sphere":
        return F.normalize(raw_NR, dim=1)
    if geometry == "biased_sphere":
        return torch.cat([F.normalize(raw_NR[:, :-1], dim=1), raw_NR[:, -1:]], dim=1)
    if geometry == "dot":
        return raw_NR
    point_NE: Tensor = _ToBall.apply(raw_NR)  # type: ignore[no-untyped-call]
    half_N1 = -point_NE.square().sum(-1, keepdim=True) / 2
    return torch.cat([point_NE, half_N1, torch.ones_like(half_N1)], dim=-1)


def query_vectors_of(raw_NE: Tensor, geometry: Geometry) -> Tensor:
    """Return the vectors (N, W) of queries, whose towers gave `raw_NE`."""
    if geometry == "sphere":
        return F.normalize(raw_NE, dim=-1)
    if geometry in _BIASED:
        point_NE = raw_NE if geometry == "dot" else F.normalize(raw_NE, dim=-1)
        return torch.cat([point_NE, torch.ones_like(raw_NE[:, :1])], dim=1)
    vectors_NW = candidate_vectors(raw_NE, geometry)
    point_NE, half_N1, one_N1 = vectors_NW.split([raw_NE.shape[-1], 1, 1], dim=-1)
    return torch.cat([point_NE, one_N1, half_N1], dim=-1)


def points_of(vectors_NW: Tensor, geometry: Geometry) -> Tensor:
    """Return the points (N, E) of queries or items."""
    return vectors_NW[..., : vectors_NW.shape[-1] - _EXTRA[geometry]]


def directions_of(vectors_NW: Tensor, geometry: Geometry) -> Tensor:
    """Return the points (N, E), of unit length where nothing else bounds them."""
    points_NE = points_of(vectors_NW, geometry)
    return F.normalize(points_NE, dim=-1) if geometry == "dot" else points_NE


def rotated(vectors_NX: Tensor, rotation_EE: Tensor | None) -> Tensor:
    """Return x R in place of each point x that rows begin with; None: as they are."""
    if rotation_EE is None:
        return vectors_NX
    width = len(rotation_EE)
    return torch.cat([vectors_NX[..., :width] @ rotation_EE, vectors_NX[..., width:]], dim=-1)


def neighbours_of(vectors_NW: Tensor, geometry: Geometry, noise_NE: Tensor) -> Tensor:
    """Return vectors (N, W) of queries next to items, off by `noise_NE`."""
    return query_vectors_of(points_of(vectors_NW, geometry) + noise_NE, geometry)


class _ToBall(torch.autograd.Function):
    """x / max(1, |x|), with the gradient of projected descent.

    Outside, the derivative of x / |x| has no part along x: what once left the ball would stay on
    its surface. Here a step back inside is allowed, a step further out is not.
    """

    @staticmethod
    def forward(ctx: Any, raw_NE: Tensor) -> Any:
        norm_N1 = torch.linalg.vector_norm(raw_NE, dim=-1, keepdim=True).clamp(min=1)
        point_NE = raw_NE / norm_N1
        ctx.save_for_backward(point_NE, norm_N1)
        return point_NE

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_NE,) = grads
        point_NE, norm_N1 = ctx.saved_tensors
        along_N1 = (grad_NE * point_NE).sum(-1, keepdim=True)
        outward_N1 = torch.where(norm_N1 > 1, along_N1.clamp(max=0), 0.0)
        return (grad_NE - outward_N1 * point_NE) / norm_N1
