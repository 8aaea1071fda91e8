"""Matrix factorisation of interactions against all other pairs; needs `implicit`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from recsys.plain.interactions import Integers, Ones, history_items, user_items
from recsys.plain.kind import PlainConfig


class ImplicitAlsConfig(PlainConfig):
    """Settings of an `ImplicitAls`."""

    kind: Literal["ials"] = "ials"
    factors: Annotated[int, Field(ge=1)] = 128
    """Width of the vectors."""
    iterations: Annotated[int, Field(ge=1)] = 15
    """How often users and items are solved for in turn."""
    confidence: Annotated[float, Field(ge=1)] = 10.0
    """Weight of an interaction; pairs without one weigh 1."""
    l2_share: Annotated[float, Field(gt=0)] = 0.5
    """L2 over the mean number of users an item: dense logs need more of it."""


@dataclass(frozen=True)
class ImplicitAls:
    """Alternating least squares over all cells of the user-item matrix, with weights.

    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
    equation 3, and its conjugate gradients by Takacs, Pilaszy and Tikk, RecSys 2011: minimises

        sum over (u, i) of c_ui (p_ui - x_u . y_i)^2 + l2 (sum |x_u|^2 + sum |y_i|^2)

    with p_ui = 1 and c_ui = `confidence` where u interacted with i, else p_ui = 0 and c_ui = 1. A
    query's vector is solved for from its history, exactly as a user's is, so that histories that
    training never saw are answered too.

    item_factors: (n_items, factors) float32. l2: what is added to the diagonal.
    """

    item_factors: NDArray[np.float32]
    confidence: float
    l2: float

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        factors: int = 128,
        iterations: int = 15,
        confidence: float = 10.0,
        l2_share: float = 0.5,
        seed: int = 0,
    ) -> "ImplicitAls":
        """Factorise.

        Args:
            user_row: (E,) the users, training rows only; repeats count once.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            factors: width of the vectors.
            iterations: how often users and items are solved for in turn.
            confidence: weight of an interaction; other pairs weigh 1.
            l2_share: l2 over the mean number of users an item: dense logs need more of it.

            seed: of the first vectors.

        Raises:
            ImportError: `implicit` is not installed.
        """
        return cls.of(
            user_items(user_row, item_row, num_items),
            factors=factors,
            iterations=iterations,
            confidence=confidence,
            l2_share=l2_share,
            seed=seed,
        )

    @classmethod
    def of(
        cls,
        user_matrix: Ones,
        *,
        factors: int,
        iterations: int,
        confidence: float,
        l2_share: float,
        seed: int = 0,
    ) -> "ImplicitAls":
        """Return the same of the rows as a matrix, (users, n_items).

        Weights that it holds multiply `confidence`; see `fit` for the rest.
        """
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        l2 = l2_share * user_matrix.nnz / user_matrix.shape[1]
        # `implicit` has threads of its own over rows; those of BLAS would compete with them.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=factors,
                regularization=l2,
                alpha=confidence,
                iterations=iterations,
                random_state=seed,
            )
            model.fit(sparse.csr_matrix(user_matrix), show_progress=False)
        return cls(np.ascontiguousarray(model.item_factors, np.float32), confidence, l2)

    @cached_property
    def _of_all(self) -> NDArray[np.float64]:
        """Y^T Y + l2 I, (factors, factors)."""
        factors = self.item_factors.astype(np.float64)
        return factors.T @ factors + self.l2 * np.eye(factors.shape[1])

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return products of the histories' vectors with the items', (B, n_items)."""
        history = history_items(history_values, history_offsets, len(self.item_factors))
        vectors = np.zeros((history.shape[0], self.item_factors.shape[1]), np.float32)
        for query in np.flatnonzero(np.diff(history.indptr)):
            items = history.indices[history.indptr[query] : history.indptr[query + 1]]
            known = self.item_factors[items].astype(np.float64)
            gram = self._of_all + (self.confidence - 1) * known.T @ known
            vectors[query] = np.linalg.solve(gram, self.confidence * known.sum(0))
        scores: NDArray[np.float32] = vectors @ self.item_factors.T
        return scores
