"""Matrix factorisation of interactions against all other pairs; needs `implicit`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from recsys.training.families.plain.interactions import Integers, history_items, user_items


@dataclass(frozen=True)
class ImplicitAls:
    """Alternating least squares over all cells of the user-item matrix, with weights.

    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
    equation 3, and its conjugate gradients by Takacs, Pilaszy and Tikk, RecSys 2011: minimises

        sum over (u, i) of c_ui (p_ui - x_u . y_i)^2 + l2 (sum |x_u|^2 + sum |y_i|^2)

    with p_ui = 1 and c_ui = `confidence` where u interacted with i, else p_ui = 0 and c_ui = 1. A
    query's vector is solved for from its history, exactly as a user's is, so that histories that
    training never saw are answered too.

    model: an `implicit.cpu.als.AlternatingLeastSquares`.
    """

    model: Any

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
        from implicit.cpu.als import AlternatingLeastSquares

        user_matrix = user_items(user_row, item_row, num_items)
        # `implicit` has threads of its own over rows; those of BLAS would compete with them.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=factors,
                regularization=l2_share * user_matrix.nnz / num_items,
                alpha=confidence,
                iterations=iterations,
                random_state=seed,
            )
            model.fit(sparse.csr_matrix(user_matrix), show_progress=False)
        return cls(model)

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return products of the histories' vectors with the items', (B, n_items)."""
        items: NDArray[np.float32] = self.model.item_factors
        history = history_items(history_values, history_offsets, len(items))
        with threadpool_limits(1, "blas"):
            rows = np.arange(history.shape[0])
            vectors = self.model.recalculate_user(rows, sparse.csr_matrix(history))
        scores: NDArray[np.float32] = vectors @ items.T
        return scores
