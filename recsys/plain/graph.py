"""Filters of the user-item graph, without any training."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from recsys.plain.interactions import (
    CELLS_AT_ONCE,
    Integers,
    Ones,
    blocks_of,
    gram_of,
    history_items,
    user_items,
)
from recsys.plain.kind import PlainConfig

WHOLE_ITEMS = 10_000
"""Catalogues up to this size have the filters as one matrix, 0.4 GB at most."""


class GraphFilterConfig(PlainConfig):
    """Settings of a `GraphFilter`."""

    kind: Literal["gf_cf"] = "gf_cf"
    rank: Annotated[int, Field(ge=1)] = 256
    """Singular vectors of the low-pass filter; fewer where there are no more."""
    alpha: Annotated[float, Field(ge=0)] = 0.3
    """Weight of the low-pass filter."""


@dataclass(frozen=True)
class GraphFilter:
    """GF-CF: a linear filter of the graph plus an ideal low-pass one.

    Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021,
    https://arxiv.org/abs/2108.07567, section 4 (algorithm 1). With R (users, items) of ones, n_u
    and n_i the numbers of a user's items and of an item's users, and r the history as ones,

        R~_ui = R_ui / sqrt(n_u n_i)
        scores = r R~^T R~  +  alpha r D^-1/2 V V^T D^1/2,   D = diag(n_i)

    with V the right singular vectors of R~ to its `rank` largest singular values. Items and
    users without interactions weigh nothing.

    Small catalogues have the matrix of both filters made once; of larger ones, R~^T R~ would be
    nearly full, and the history goes through the factors.

    normalised: (users, n_items) float32 CSR, R~. vectors: (rank, n_items) float32, V^T.
    root: (n_items,) float32, sqrt(n_i).
    """

    normalised: sparse.csr_array[Any]
    vectors: NDArray[np.float32]
    root: NDArray[np.float32]
    alpha: float

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        rank: int = 256,
        alpha: float = 0.3,
        weight: NDArray[np.float32] | None = None,
    ) -> "GraphFilter":
        """Normalise the matrix and find its largest singular vectors.

        Args:
            user_row: (E,) the users, training rows only; repeats count once.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
            rank: singular vectors kept; fewer where the matrix has no more.
            alpha: weight of the low-pass filter.
        """
        matrix, root = normalised(user_items(user_row, item_row, num_items, weight=weight))
        return cls(matrix, right_vectors(matrix, root, rank), root, alpha)

    @cached_property
    def whole(self) -> NDArray[np.float32] | None:
        """Both filters as one matrix, (n_items, n_items) float32; None of large catalogues."""
        num_items = len(self.root)
        if num_items > WHOLE_ITEMS:
            return None
        whole = gram_of(self.normalised).T  # symmetric; in row order
        from_items = self.vectors / np.where(self.root > 0, self.root, 1)
        for start, stop in blocks_of(num_items):
            smooth = (from_items[:, start:stop].T @ self.vectors) * self.root
            whole[start:stop] += np.float32(self.alpha) * smooth
        return whole

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return the sum of both filters, (B, n_items)."""
        history = history_items(history_values, history_offsets, len(self.root))
        scores: NDArray[np.float32]
        if self.whole is not None:
            scores = history @ self.whole
            return scores
        scores = np.empty(history.shape, np.float32)
        step = max(1, CELLS_AT_ONCE // max(1, self.normalised.shape[0]))
        for start in range(0, history.shape[0], step):
            scores[start : start + step] = self._filtered(history[start : start + step])
        return scores

    def _filtered(self, history: sparse.csr_array[Any]) -> NDArray[np.float32]:
        similar = (self.normalised @ history.T).toarray()
        linear: NDArray[np.float32] = (self.normalised.T @ similar).T
        from_items = self.vectors / np.where(self.root > 0, self.root, 1)
        smooth = (history @ from_items.T) @ self.vectors
        return linear + np.float32(self.alpha) * smooth * self.root


def graph_products(num_rows: int, num_items: int, num_queries: int) -> int:
    """Return about how many multiplications the answers of a `GraphFilter` take.

    Args:
        num_rows: training rows.
        num_items: size of the catalogue.
        num_queries: how many ask.
    """
    return 0 if num_items <= WHOLE_ITEMS else 2 * num_rows * num_queries


def normalised(user_matrix: Ones) -> tuple[sparse.csr_array[Any], NDArray[np.float32]]:
    """Return R~ (users, n_items) float32 CSR of R, whose cells it overwrites, and sqrt(n_i)."""
    num_items = user_matrix.shape[1]
    of_items = np.bincount(user_matrix.indices, user_matrix.data, minlength=num_items)
    root = np.sqrt(of_items).astype(np.float32)
    of_user = np.sqrt(user_matrix.sum(axis=1)).astype(np.float32)
    user_matrix.data /= np.repeat(of_user, np.diff(user_matrix.indptr)) * root[user_matrix.indices]
    return user_matrix, root


def right_vectors(
    matrix: sparse.csr_array[Any], root: NDArray[np.float32], rank: int
) -> NDArray[np.float32]:
    """Return the right singular vectors of R~ to its largest singular values, (rank, n_items)."""
    most = min(matrix.shape)
    if rank >= most:
        vectors = np.linalg.svd(matrix.toarray(), full_matrices=False)[2][:rank]
    else:
        from scipy.sparse.linalg import svds

        start = np.full(most, most**-0.5, np.float32)
        vectors = svds(matrix, k=rank, v0=start, return_singular_vectors="vh")[2]  # type: ignore[arg-type]
    vectors = np.ascontiguousarray(vectors, np.float32)
    vectors[:, root == 0] = 0  # but for rounding they are
    return vectors
