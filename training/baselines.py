"""What every model has to beat: popularity, and neighbours in the item-item graph.

Both answer one protocol: a history of item rows in, a score for every item of the catalogue
out. Whether items already taken may be recommended is the caller's business.

Shape letters in words: B queries, T history events in all, n_items the catalogue.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Integers = NDArray[np.integer[Any]]
_CELLS_AT_ONCE = 32_000_000


class Baseline(Protocol):
    """Scores of the whole catalogue from histories."""

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return scores (B, n_items), higher is better.

        Args:
            history_values: (T,) item rows.
            history_offsets: (B + 1,) from 0 to T; query b has values[offsets[b]:offsets[b + 1]].
        """


@dataclass(frozen=True)
class Popularity:
    """The same list for everybody: items by how many users took them.

    num_users (n_items,) float32, how many distinct users took each item.
    """

    num_users: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        time: Integers | None = None,
        window: int | None = None,
    ) -> "Popularity":
        """Count distinct users an item.

        Args:
            user_row: (E,) who took, training rows only.
            item_row: (E,) what was taken.
            num_items: size of the catalogue.
            time: (E,) when, needed with `window`.
            window: count only the rows at most this long before the last one, in units of `time`.

        Raises:
            ValueError: a window without times.
        """
        if window is not None:
            if time is None:
                raise ValueError("a popularity window needs the times of the rows")
            recent = time >= time.max() - window
            user_row, item_row = user_row[recent], item_row[recent]
        taken = _user_items(user_row, item_row, num_items)
        return cls(np.bincount(taken.indices, minlength=num_items).astype(np.float32))

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return the counts for each query, (B, n_items)."""
        return np.tile(self.num_users, (len(history_offsets) - 1, 1))


@dataclass(frozen=True)
class ItemKNN:
    """Items that were taken by the same users as the items of the history.

    Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", ACM TOIS 2004, section
    4: with c_ij the users who took both i and j and n_i those who took i,

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
            user_row: (E,) who took, training rows only; repeats count once.
            item_row: (E,) what was taken.
            num_items: size of the catalogue.
            neighbours: most similar items kept an item, ties by smaller row.
            shrinkage: added to the denominator of the cosine, in users.
        """
        taken = _user_items(user_row, item_row, num_items)
        takers = taken.T.tocsr()
        norm = np.sqrt(np.diff(takers.indptr)).astype(np.float32)
        rows_at_once = max(1, _CELLS_AT_ONCE // num_items)
        blocks = []
        for start in range(0, num_items, rows_at_once):
            common = (takers[start : start + rows_at_once] @ taken).tocsr()
            rows = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr)) + start
            common.data /= norm[rows] * norm[common.indices] + np.float32(shrinkage)
            common.data[rows == common.indices] = 0
            common.sort_indices()
            blocks.append(_largest(common, neighbours))
        return cls(sparse.vstack(blocks, format="csr", dtype=np.float32))

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return summed similarities, (B, n_items); zero where no neighbour was taken."""
        num_queries, num_items = len(history_offsets) - 1, self.similarity.shape[0]
        query = np.repeat(np.arange(num_queries), np.diff(history_offsets))
        history = _user_items(query, history_values, num_items, num_queries)
        scores: NDArray[np.float32] = (history @ self.similarity).toarray()
        return scores


def _user_items(
    user_row: Integers, item_row: Integers, num_items: int, num_users: int | None = None
) -> sparse.csr_array[Any]:
    """Return (users, items) float32 CSR of ones, a pair once however often it occurs."""
    if num_users is None:
        num_users = int(user_row.max(initial=-1)) + 1
    pairs = np.unique(user_row.astype(np.int64) * num_items + item_row)
    users, items = np.divmod(pairs, num_items)
    # int32 indices: SciPy's products then move half the bytes.
    indptr = np.searchsorted(users, np.arange(num_users + 1)).astype(np.int32)
    ones = np.ones(len(pairs), np.float32)
    return sparse.csr_array((ones, items.astype(np.int32), indptr), shape=(num_users, num_items))


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
