"""What follows what in sequences, counted; and the last steps of a history, weighed.

A history is in order, oldest first, and repeats count; training rows come as sequences, one after
the other, each in order. Letters: B queries, E training events, n_items the catalogue.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Integers = NDArray[np.integer[Any]]
Matrix = sparse.csr_array[Any]


def last_steps(
    history_values: Integers, history_offsets: Integers, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the last `most` steps of each history: query, item and age, (T',) int64 each.

    Age 0 is the newest step of its query. Queries ascend, ages fall.
    """
    lengths = np.diff(history_offsets)
    query = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(history_offsets[1:], lengths) - 1 - np.arange(history_offsets[-1])
    kept = age < most
    items = history_values[kept].astype(np.int64)
    return query[kept], items, age[kept].astype(np.int64)


def weighted_steps(
    history_values: Integers,
    history_offsets: Integers,
    num_items: int,
    *,
    most: int,
    decay: float,
) -> Matrix:
    """Return decay^age of the last `most` steps, summed where an item repeats, (B, n_items) CSR."""
    query, items, age = last_steps(history_values, history_offsets, most)
    weight = np.float32(decay) ** age.astype(np.float32)
    shape = (len(history_offsets) - 1, num_items)
    return sparse.coo_array((weight, (query, items)), shape=shape).tocsr()


def follow_counts(
    sequence: Integers,
    item_row: Integers,
    num_items: int,
    *,
    steps: int,
    lag_decay: float,
    weight: NDArray[np.float32] | None = None,
) -> Matrix:
    """Return how often an item follows another, (n_items, n_items) float32 CSR: row first.

    C_ij = sum over lags k = 1..steps of lag_decay^(k - 1) times how often j is k steps after
    i in one sequence.

    Args:
        sequence: (E,) the sequence of each event, ascending.
        item_row: (E,) the items, in order within a sequence.
        num_items: size of the catalogue.
        steps: largest distance of a pair.
        lag_decay: what a pair loses of its weight a step.
        weight: (E,) what a pair counts by its later event; None: 1 each.
    """
    shape = (num_items, num_items)
    # int32 indices: SciPy's products then move half the bytes.
    items = item_row.astype(np.int32)
    counts = no_entries(shape)
    for lag in range(1, steps + 1):
        together = sequence[lag:] == sequence[:-lag]
        if not together.any():
            break
        pairs = (items[:-lag][together], items[lag:][together])
        count = np.full(len(pairs[0]), lag_decay ** (lag - 1), np.float32)
        if weight is not None:
            count *= weight[lag:][together]
        counts = counts + sparse.coo_array((count, pairs), shape=shape).tocsr()
    return counts


def follow_bytes(num_rows: int, num_items: int, steps: int = 10) -> int:
    """Return about how much memory `follow_counts` may take, where no pair occurs twice.

    Args:
        num_rows: training rows.
        num_items: size of the catalogue.
        steps: largest distance of a pair.
    """
    # Index and number of an entry, thrice: of the sum, of what is added, and of both together.
    return min(num_rows * steps, num_items**2) * 3 * 8


def no_entries(shape: tuple[int, int]) -> Matrix:
    """Return an empty float32 CSR matrix."""
    none = np.zeros(0, np.int32)
    return sparse.coo_array((none.astype(np.float32), (none, none)), shape=shape).tocsr()


def row_sums(matrix: Matrix) -> NDArray[np.float32]:
    """Return the sum of each row, (rows,) float32."""
    return np.asarray(matrix.sum(axis=1), np.float32).ravel()


def scaled_rows(matrix: Matrix, factor: NDArray[np.floating[Any]]) -> Matrix:
    """Return `matrix` with row r multiplied by factor[r]."""
    factors = factor.astype(np.float32)
    data = matrix.data * np.repeat(factors, np.diff(matrix.indptr))
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
