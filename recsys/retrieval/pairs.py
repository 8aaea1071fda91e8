"""Pairs (query, item row, score) as flat numpy arrays: sorted, cut to k, scored exactly.

One sort of packed integers orders every list of a chunk at once. From the high bits to the low
ones a key holds the query, the score turned so that larger comes first, and the item row: so
equal scores are in the order of their rows, and a key decodes to what it was made from.
"""

import functools
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Keys = NDArray[np.uint64]


def score_pairs(queries: Tensor, items: Tensor, query: Ints, row: Ints) -> Floats:
    """Return the inner product of every pair, (P,) float32.

    queries (B, E), items (N, E) float32; query (P,) ascending and row (P,) say which two vectors
    are meant. A product depends on its two vectors alone, never on the other pairs: scores
    are equal bit for bit however the work was cut, and equal vectors tie exactly.
    """
    if not len(row):
        return np.zeros(0, np.float32)
    _announce_sparse()
    starts = torch.from_numpy(np.searchsorted(query, np.arange(len(queries) + 1)))
    pattern = torch.sparse_csr_tensor(
        starts, torch.from_numpy(row), torch.zeros(len(row)), size=(len(queries), len(items))
    )
    scores: Floats = torch.sparse.sampled_addmm(pattern, queries, items.T, beta=0).values().numpy()
    return scores


@functools.cache
def _announce_sparse() -> None:
    """Let torch say once, unheard, that its CSR tensors are a beta feature."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(
            torch.zeros(2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        )


def top_of_pairs(
    query: Ints, row: Ints, score: Floats, *, num_queries: int, num_rows: int, k: int
) -> tuple[Floats, Ints]:
    """Return the k best rows of every query, scores (Q, k) and rows (Q, k) int64.

    Larger scores first, ties by smaller row; -inf and -1 where a query has fewer than k pairs.
    """
    row_bits = max(1, (num_rows - 1).bit_length())
    if row_bits + 32 + num_queries.bit_length() > 64:
        return _top_by_lexsort(query, row, score, num_queries, k)
    score_shift, query_shift = np.uint64(row_bits), np.uint64(row_bits + 32)
    keys = query.astype(np.uint64) << query_shift
    keys |= descending(score) << score_shift
    keys |= row.astype(np.uint64)
    keys.sort()
    starts = np.searchsorted(keys, np.arange(num_queries + 1, dtype=np.uint64) << query_shift)
    where, inside = _places(starts, k)
    chosen = keys[where] if len(keys) else where.view(np.uint64)
    best = from_descending((chosen >> score_shift) & np.uint64(0xFFFFFFFF))
    rows = (chosen & np.uint64((1 << row_bits) - 1)).view(np.int64)
    return np.where(inside, best, np.float32(-np.inf)), np.where(inside, rows, -1)


def _top_by_lexsort(
    query: Ints, row: Ints, score: Floats, num_queries: int, k: int
) -> tuple[Floats, Ints]:
    """Do the same where a key would need more than 64 bits."""
    order = np.lexsort((row, -score, query))
    # Adding zero turns -0.0 into 0.0, as the packed keys do.
    query, row, score = query[order], row[order], score[order] + np.float32(0)
    where, inside = _places(np.searchsorted(query, np.arange(num_queries + 1)), k)
    if not len(row):
        row, score = np.zeros(1, np.int64), np.zeros(1, np.float32)
    return np.where(inside, score[where], np.float32(-np.inf)), np.where(inside, row[where], -1)


def _places(starts: Ints, k: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return (Q, k) the places of the first k of every group, and whether they exist."""
    where = starts[:-1, None] + np.arange(k)
    inside = where < starts[1:, None]
    return np.where(inside, where, 0), inside


def kth_of_pairs(query: Ints, score: Floats, *, num_queries: int, k: int) -> Floats:
    """Return the k-th largest score of every query, (Q,); -inf where it has fewer pairs."""
    keys = query.astype(np.uint64) << np.uint64(32)
    keys |= descending(score)
    keys.sort()
    bounds = np.arange(num_queries + 1, dtype=np.uint64) << np.uint64(32)
    starts = np.searchsorted(keys, bounds)
    kth = np.full(num_queries, -np.inf, np.float32)
    enough = np.diff(starts) >= k
    kth[enough] = from_descending(keys[starts[:-1][enough] + k - 1] & np.uint64(0xFFFFFFFF))
    return kth


def descending(score: Floats) -> Keys:
    """Turn float32 into 32-bit numbers in uint64, the largest score into the smallest number."""
    bits = (score + np.float32(0)).view(np.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (0x7FFFFFFF - ascending.astype(np.int64)).view(np.uint64)


def from_descending(keys: Keys) -> Floats:
    """Undo `descending`."""
    ascending = (0x7FFFFFFF - keys.view(np.int64)).astype(np.int32)
    bits: NDArray[np.int32] = ascending ^ ((ascending >> 31) & 0x7FFFFFFF)
    return bits.view(np.float32)
