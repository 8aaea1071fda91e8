"""One linear model from the history to every item, in closed form."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.plain.interactions import (
    Integers,
    blocks_of,
    gram_of,
    history_items,
    user_items,
)
from recsys.plain.kind import PlainConfig


class EaseConfig(PlainConfig):
    """Settings of an `Ease`."""

    kind: Literal["ease"] = "ease"
    l2: Annotated[float, Field(ge=1)] = 200.0
    """Added to the diagonal of the items' matrix, in users: with more, a few users say less."""
    max_items: Annotated[int, Field(ge=1)] = 20_000
    """Largest catalogue: it takes the square of it x 4 bytes, and the cube of work."""


@dataclass(frozen=True)
class Ease:
    """Weights from each item to each other that reconstruct the interactions best.

    Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019,
    https://arxiv.org/abs/1905.03375, equation 8: with X (users, items) of ones,

        P = (X^T X + l2 I)^-1,   B_ij = -P_ij / P_jj,   B_jj = 0
        score(u, j) = sum over distinct i in the history of u of B_ij

    Memory: n_items squared x 4 bytes, never twice. Time: n_items cubed multiplications.

    weights: (n_items, n_items) float32, B.
    """

    weights: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        l2: float = 200.0,
        weight: NDArray[np.float32] | None = None,
    ) -> "Ease":
        """Invert the regularised Gram matrix in place, by its Cholesky factor.

        Args:
            user_row: (E,) the users, training rows only; repeats count once.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
            l2: what is added to the diagonal, in users. At least 1 or so: single precision
                cannot invert what is nearly singular.

        Raises:
            ValueError: l2 is so small that the matrix is singular in single precision.
        """
        from scipy.linalg import lapack

        gram = gram_of(user_items(user_row, item_row, num_items, weight=weight))
        np.einsum("ii->i", gram)[...] += np.float32(l2)
        factor, bad = lapack.spotrf(gram, lower=1, clean=0, overwrite_a=1)
        if bad == 0:
            inverse, bad = lapack.spotri(factor, lower=1, overwrite_c=1)
        if bad:
            raise ValueError(f"l2 of {l2:g} leaves the Gram matrix singular; choose a larger one")
        # The lower triangle in column order is the upper one in row order.
        weights: NDArray[np.float32] = inverse.T
        for start, stop in blocks_of(num_items):
            weights[start:stop, :start] = weights[:start, start:stop].T
            block = weights[start:stop, start:stop]
            block[...] = np.triu(block) + np.triu(block, 1).T
        weights /= -np.diagonal(weights).copy()
        np.fill_diagonal(weights, 0)
        return cls(weights)

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return summed weights, (B, n_items); they may be negative."""
        history = history_items(history_values, history_offsets, len(self.weights))
        scores: NDArray[np.float32] = history @ self.weights
        return scores
