"""Neighbours in the item-item graph: the other items of the users of these items."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from recsys.core.distinct import distinct
from recsys.plain.interactions import (
    Integers,
    blocks_of,
    history_items,
    user_items,
)
from recsys.plain.kind import PlainConfig

_AT_ONCE = 1 << 17
"""Entries whose similarities are worked out together: few enough for a processor's cache."""


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

    where j is among the `neighbours` most similar of i. Where rows have weights, c_ij is the sum of
    the products of a user's weights of both, and n_i that of the squares. Unlike there, the columns
    are not scaled to sum to one; shrinkage damps similarities that rest on a few users.

    similarity: (n_items, n_items) float32 CSR, at most `neighbours` entries a row, in any order.
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
        weight: NDArray[np.float32] | None = None,
    ) -> "ItemKNN":
        """Find each item's neighbours, block by block: no items x items matrix is ever whole.

        Args:
            user_row: (E,) the users, training rows only; repeats count once.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
            neighbours: most similar items kept an item, ties by smaller row.
            shrinkage: added to the denominator of the cosine, in users.
        """
        user_matrix = user_items(user_row, item_row, num_items, weight=weight)
        users = user_matrix.T.tocsr()
        squares = np.bincount(user_matrix.indices, user_matrix.data**2, minlength=num_items)
        norm = np.sqrt(squares).astype(np.float32)
        blocks = []
        for start, stop in blocks_of(num_items):
            common = (users[start:stop] @ user_matrix).tocsr()
            blocks.append(_nearest(common, start, norm, np.float32(shrinkage), neighbours))
        return cls(sparse.vstack(blocks, format="csr", dtype=np.float32))

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return summed similarities, (B, n_items); zero without a neighbour in the history."""
        history = history_items(history_values, history_offsets, self.similarity.shape[0])
        scores: NDArray[np.float32] = (history @ self.similarity).toarray()
        return scores


def _nearest(
    common: sparse.csr_array[Any],
    first: int,
    norm: NDArray[np.float32],
    shrinkage: np.float32,
    count: int,
) -> sparse.csr_array[Any]:
    """Return the `count` largest similarities of each row, ties by smaller column.

    Args:
        common: the users that items have in common, (M, n_items), columns in any order.
        first: the item that its first row is.
        norm: (n_items,) root of the number of users.
        shrinkage: added to the denominator.
        count: how many are kept of a row.
    """
    values, columns, counts = [common.data[:0]], [common.indices[:0]], [np.zeros(1, np.int64)]
    runs = np.searchsorted(common.indptr, np.arange(0, max(common.nnz, 1), _AT_ONCE))
    for start, stop in pairwise(distinct(np.append(runs, common.shape[0])).tolist()):
        bounds = common.indptr[start : stop + 1]
        run, lengths = slice(bounds[0], bounds[-1]), np.diff(bounds)
        row, column = np.repeat(np.arange(stop - start), lengths), common.indices[run]
        item = row + (first + start)
        value = common.data[run] / (norm[item] * norm[column] + shrinkage)
        value[item == column] = 0
        kept = value > 0
        for long in np.flatnonzero(lengths > count):
            place = slice(bounds[long] - bounds[0], bounds[long + 1] - bounds[0])
            kept[place] = _are_largest(value[place], column[place], count)
        values.append(value[kept])
        columns.append(column[kept])
        counts.append(np.bincount(row[kept], minlength=stop - start))
    found = (np.concatenate(values), np.concatenate(columns), np.cumsum(np.concatenate(counts)))
    return sparse.csr_array(found, shape=common.shape)


def _are_largest(
    value: NDArray[np.float32], column: NDArray[np.integer[Any]], count: int
) -> NDArray[np.bool_]:
    """Return which are the `count` largest positive values, ties by smaller column."""
    threshold = np.partition(value, -count)[-count]
    kept = value > max(threshold, 0)
    if threshold > 0:
        ties = np.flatnonzero(value == threshold)
        kept[ties[np.argsort(column[ties])][: count - int(kept.sum())]] = True
    return kept
