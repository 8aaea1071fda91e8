"""What baselines are fitted on and answer from: the interactions, as sparse matrices of ones.

All answer one protocol: a history of item rows in, a score for every item of the catalogue
out. Whether earlier items may be recommended is for the caller to decide.

Letters: B queries, T history events in all, E training events, n_items the catalogue.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.core.distinct import distinct

Integers = NDArray[np.integer[Any]]
Ones = sparse.csr_array[Any]

CELLS_AT_ONCE = 32_000_000
"""Most numbers of a block, where a matrix of items x items or queries x items is made in parts."""


class Baseline(Protocol):
    """Scores of the whole catalogue from histories."""

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return scores (B, n_items), higher is better.

        Args:
            history_values: (T,) item rows.
            history_offsets: (B + 1,) from 0 to T; query b has values[offsets[b]:offsets[b + 1]].
        """


def user_items(
    user_row: Integers,
    item_row: Integers,
    num_items: int,
    num_users: int | None = None,
    *,
    weight: NDArray[np.float32] | None = None,
) -> Ones:
    """Return (users, n_items) float32 CSR of ones, a pair once however often it occurs.

    With weights, a pair has the largest of its rows.

    Args:
        user_row: (E,) the users.
        item_row: (E,) the items.
        num_items: size of the catalogue.
        num_users: rows of the matrix; None: up to the largest user row.
        weight: (E,) above 0; None: 1 each.
    """
    if num_users is None:
        num_users = int(user_row.max(initial=-1)) + 1
    of_rows = user_row.astype(np.int64) * num_items + item_row
    pairs = distinct(of_rows)
    users, items = np.divmod(pairs, num_items)
    # int32 indices: SciPy's products then move half the bytes.
    indptr = np.searchsorted(users, np.arange(num_users + 1)).astype(np.int32)
    if weight is None:
        ones = np.ones(len(pairs), np.float32)
    else:
        ones = np.zeros(len(pairs), np.float32)
        np.maximum.at(ones, np.searchsorted(pairs, of_rows), weight)
    return sparse.csr_array((ones, items.astype(np.int32), indptr), shape=(num_users, num_items))


def history_items(history_values: Integers, history_offsets: Integers, num_items: int) -> Ones:
    """Return the histories as (B, n_items) float32 CSR of ones, a repeated item once."""
    num_queries = len(history_offsets) - 1
    query = np.repeat(np.arange(num_queries), np.diff(history_offsets))
    return user_items(query, history_values, num_items, num_queries)


def gram_of(matrix: sparse.csr_array[Any]) -> NDArray[np.float32]:
    """Return X^T X of X (users, n_items), (n_items, n_items) float32 in column order.

    The sparse product is made in blocks: nothing but the result is large.
    """
    across = matrix.T.tocsr()
    num_items = matrix.shape[1]
    gram = np.empty((num_items, num_items), np.float32, order="F")
    for start, stop in blocks_of(num_items):
        # Symmetric: rows of the product are columns of the whole, which are adjacent in memory.
        (across[start:stop] @ matrix).toarray(out=gram.T[start:stop])
    return gram


def blocks_of(num_items: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of runs of rows of a matrix of items x items, `CELLS_AT_ONCE` each."""
    step = max(1, CELLS_AT_ONCE // num_items)
    for start in range(0, num_items, step):
        yield start, min(start + step, num_items)
