"""A flexible filter of the user-item graph, by Chebyshev interpolation, without any training."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from recsys.plain.graph import normalised, right_vectors
from recsys.plain.interactions import (
    CELLS_AT_ONCE,
    Integers,
    Ones,
    gram_of,
    history_items,
    user_items,
)
from recsys.plain.kind import PlainConfig

WHOLE_ITEMS = 4_000
"""Catalogues up to this size have the filter as one matrix: its cube is little work then."""


class ChebyshevFilterConfig(PlainConfig):
    """Settings of a `ChebyshevFilter`."""

    kind: Literal["cheby_cf"] = "cheby_cf"
    order: Annotated[int, Field(ge=1)] = 8
    """Degree of the polynomial."""
    flatness: Annotated[float, Field(gt=0)] = 2.0
    """How flat the filter is around the middle of the spectrum; 1 is a straight line."""
    rank: Annotated[int, Field(ge=1)] = 256
    """Singular vectors of the low-pass filter; fewer where there are no more."""
    alpha: Annotated[float, Field(ge=0)] = 0.2
    """Weight of the low-pass filter."""
    degree: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Power of the number of an item's users by which its history weighs less and it scores
    more."""


@dataclass(frozen=True)
class ChebyshevFilter:
    """ChebyCF: a polynomial of the graph's Laplacian plus an ideal low-pass filter.

    Kim, Sung, Han and Lee, "Graph Spectral Filtering with Chebyshev Interpolation for
    Recommendation", SIGIR 2025, https://arxiv.org/abs/2505.00552, section 4. With R~ as in
    `recsys.plain.graph.GraphFilter`, n_i the number of an item's users and r the history as ones,

        s = r D^-degree,   D = diag(n_i)
        scores = (s sum over k <= order of c_k T_k(I - 2 R~^T R~)  +  alpha s V V^T) D^degree

    T_k are Chebyshev's polynomials, and c_k interpolates at the zeros of T_(order + 1) the
    response 1/2 - 1/2 sign(x) |x|^flatness: 1 for what varies least over the graph, 0 for what
    varies most, and about a half for what lies between. V as in the other filter. Items without
    users weigh nothing and score nothing.

    normalised: (users, n_items) float32 CSR, R~. vectors: (rank, n_items) float32, V^T.
    coefficients: (order + 1,) float64. power: (n_items,) float32, n_i^degree, 0 without users.
    """

    normalised: sparse.csr_array[Any]
    vectors: NDArray[np.float32]
    coefficients: NDArray[np.float64]
    power: NDArray[np.float32]
    alpha: float

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        order: int = 8,
        flatness: float = 2.0,
        rank: int = 256,
        alpha: float = 0.2,
        degree: float = 0.2,
    ) -> "ChebyshevFilter":
        """Normalise the matrix, and find its largest singular vectors and the polynomial.

        Args:
            user_row: (E,) the users, training rows only; repeats count once.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            order: degree of the polynomial.
            flatness: of the response; 1 is a straight line.
            rank: singular vectors kept; fewer where the matrix has no more.
            alpha: weight of the low-pass filter.
            degree: power of the number of users.
        """
        ones = user_items(user_row, item_row, num_items)
        return cls.of(ones, order=order, flatness=flatness, rank=rank, alpha=alpha, degree=degree)

    @classmethod
    def of(
        cls,
        user_matrix: Ones,
        *,
        order: int,
        flatness: float,
        rank: int,
        alpha: float,
        degree: float,
    ) -> "ChebyshevFilter":
        """Return the same of the rows as a matrix, (users, n_items), that may hold weights.

        The matrix is overwritten; see `fit` for the rest.
        """
        matrix, root = normalised(user_matrix)
        vectors = right_vectors(matrix, root, rank)
        power = np.where(root > 0, np.maximum(root, 1) ** np.float32(2 * degree), 0)
        return cls(matrix, vectors, _coefficients(order, flatness), power.astype(np.float32), alpha)

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return the sum of both filters, (B, n_items)."""
        history = history_items(history_values, history_offsets, len(self.power))
        known = self.power[history.indices]
        history.data /= np.where(known > 0, known, np.inf)
        if self.whole is not None:
            scores: NDArray[np.float32] = history @ self.whole
        else:
            scores = np.empty(history.shape, np.float32)
            step = max(1, CELLS_AT_ONCE // (4 * max(self.normalised.shape)))
            for start in range(0, history.shape[0], step):
                scores[start : start + step] = self._filtered(history[start : start + step])
        return scores * self.power

    @cached_property
    def whole(self) -> NDArray[np.float32] | None:
        """Both filters as one matrix, (n_items, n_items) float32; None of large catalogues."""
        num_items = len(self.power)
        if num_items > WHOLE_ITEMS:
            return None
        gram = np.ascontiguousarray(gram_of(self.normalised))
        one = np.eye(num_items, dtype=np.float32)
        whole = self._polynomial(one, lambda signal: gram @ signal)
        return whole + np.float32(self.alpha) * (self.vectors.T @ self.vectors)

    def _filtered(self, history: sparse.csr_array[Any]) -> NDArray[np.float32]:
        across = self.normalised.T
        signal = history.toarray().T
        found = self._polynomial(signal, lambda one: across @ (self.normalised @ one))
        found += np.float32(self.alpha) * (self.vectors.T @ (self.vectors @ signal))
        return found.T

    def _polynomial(self, signal: NDArray[np.float32], smooth: Any) -> NDArray[np.float32]:
        """Return sum of c_k T_k(I - 2 smooth) signal, (n_items, B)."""
        first, *others = self.coefficients.astype(np.float32)
        before, now = signal, signal - 2 * smooth(signal)
        found = first * before + others[0] * now
        for coefficient in others[1:]:
            before, now = now, 2 * (now - 2 * smooth(now)) - before
            found += coefficient * now
        return found


def response(x: NDArray[np.float64], flatness: float) -> NDArray[np.float64]:
    """Return how much the filter lets through of each frequency x, from -1 to 1."""
    return 0.5 - 0.5 * np.sign(x) * np.abs(x) ** flatness


def _coefficients(order: int, flatness: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = chebyshev.chebinterpolate(
        lambda x: response(x, flatness),  # type: ignore[arg-type,return-value]
        order,
    )
    return found
