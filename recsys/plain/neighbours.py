"""Neighbours in the item-item graph: the other items of the users of these items."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from recsys.plain.interactions import (
    Integers,
    blocks_of,
    history_items,
    user_items,
)
from recsys.plain.kind import PlainConfig


class ItemKNNConfig(PlainConfig):
    """Settings of an `ItemKNN`."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: Annotated[int, Field(ge=1)] = 200
    """Most similar items that are kept of an item."""
    shrinkage: Annotated[float, Field(ge=0)] = 10.0
    """Added to the denominator of the cosine, in users: what a few users share says less."""


@dataclass(frozen=True)
class ItemKNN:
    """Items with the same users as the items of the history.

    Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", ACM TOIS 2004, section
    4: with c_ij the users of both i and j and n_i those of i,

        sim(i, j) = c_ij / (sqrt(n_i * n_j) + shrinkage),   sim(i, i) = 0
        score(u, j) = sum over distinct i in the history of u of sim(i, j)

    where j is among the `neighbours` most similar of i. Unlike there, the columns are not
    scaled to sum to one; shrinkage damps similarities that rest on a few users.

    similarity: (n_items, n_items) float32 CSR, at most `neighbours` entries a row.
    """

    similarity: sparse.csr_array[Any]

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        neighbours: int = 200,
        shrinkage: float = 10.0,
    ) -> "ItemKNN":
        """Find each item's neighbours, block by block: no items x items matrix is ever whole.

        Args:
            user_row: (E,) the users, training rows only; repeats count once.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            neighbours: most similar items kept an item, ties by smaller row.
            shrinkage: added to the denominator of the cosine, in users.
        """
        user_matrix = user_items(user_row, item_row, num_items)
        users = user_matrix.T.tocsr()
        norm = np.sqrt(np.diff(users.indptr)).astype(np.float32)
        blocks = []
        for start, stop in blocks_of(num_items):
            common = (users[start:stop] @ user_matrix).tocsr()
            rows = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr)) + start
            common.data /= norm[rows] * norm[common.indices] + np.float32(shrinkage)
            common.data[rows == common.indices] = 0
            common.sort_indices()
            blocks.append(_largest(common, neighbours))
        return cls(sparse.vstack(blocks, format="csr", dtype=np.float32))

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return summed similarities, (B, n_items); zero without a neighbour in the history."""
        history = history_items(history_values, history_offsets, self.similarity.shape[0])
        scores: NDArray[np.float32] = (history @ self.similarity).toarray()
        return scores


def _largest(block: sparse.csr_array[Any], count: int) -> sparse.csr_array[Any]:
    """Keep the `count` largest positive entries of each row, ties by smaller column."""
    kept = np.zeros(block.nnz, bool)
    for start, stop in zip(block.indptr[:-1], block.indptr[1:], strict=True):
        values = block.data[start:stop]
        if stop - start <= count:
            kept[start:stop] = values > 0
            continue
        threshold = np.partition(values, -count)[-count]
        above = values > threshold
        kept[start:stop] = above
        if threshold > 0:
            ties = np.flatnonzero(values == threshold)[: count - int(above.sum())]
            kept[start + ties] = True
    lengths = np.concatenate([[0], np.cumsum(kept)])[block.indptr]
    return sparse.csr_array((block.data[kept], block.indices[kept], lengths), shape=block.shape)
