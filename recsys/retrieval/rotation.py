"""The rotation that brings the item vectors of a model nearest to those of an earlier one.

Inner products, and so a model's lists, fix its space up to a rotation or reflection of everything
in it: a model that is trained again has its items where another rotation put them. Over items that
both know, the one that undoes it has a closed form (Schoenemann, "A generalized solution of the
orthogonal Procrustes problem", Psychometrika 1966):

    R = argmin over orthogonal R of sum_n |x_n R - y_n|^2 = U V^T,   sum_n x_n^T y_n = U S V^T

Shape letters: N items that both models know, E width of a point.
"""

import torch
from torch import Tensor


def rotation_onto(points_NE: Tensor, earlier_NE: Tensor) -> Tensor:
    """Return the orthogonal (E, E) float64 that brings `points_NE` nearest to `earlier_NE`.

    Raises:
        ValueError: they are not of one shape.
    """
    if points_NE.shape != earlier_NE.shape:
        raise ValueError(
            f"points are {tuple(points_NE.shape)}, the earlier ones {tuple(earlier_NE.shape)}"
        )
    together_EE = points_NE.double().T @ earlier_NE.double()
    left_EE, _, right_EE = torch.linalg.svd(together_EE)
    rotation_EE: Tensor = left_EE @ right_EE
    return rotation_EE
