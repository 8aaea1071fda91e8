"""Ranking metrics of retrieved lists: arithmetic on ranks alone, never on scores.

Lists come as `top (Q, K)` item rows, best first, -1 where a list is short; what counts as a
hit comes jagged: query q's relevant items are relevant_values[offsets[q]:offsets[q + 1]],
distinct. `hits` is worked out once; every metric reads it.

Per query, with h_r = 1 where rank r (1 is best) is a hit and n the number of relevant items:
    recall@k   = sum_{r<=k} h_r / n            (of all n, also where n > k)
    hit_rate@k = 1 where any h_r = 1, r <= k
    ndcg@k     = sum_{r<=k} h_r / log2(r + 1)  over the same sum for min(k, n) hits on top
    mrr@k      = 1 / (rank of the first hit), 0 without one in the first k
A query without relevant items is undefined, NaN; a mean over queries leaves it out.

Example:
    >>> top = np.array([[4, 7, 1]])
    >>> hit = hits(top, np.array([7, 9]), np.array([0, 2]))
    >>> recall_at_k(hit, np.array([2]), 3)
    array([0.5])
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct, first_places

Integers = NDArray[np.integer[Any]]
Scalar = TypeVar("Scalar", bound=np.generic)


def hits(top: Integers, relevant_values: Integers, relevant_offsets: Integers) -> NDArray[np.bool_]:
    """Return which places of the lists are hits, (Q, K) bool.

    An item that a list names twice is a hit at its better rank only; -1 never hits.

    Args:
        top: (Q, K) item rows, best first, -1 where the list is short.
        relevant_values: (T,) item rows, distinct within a query.
        relevant_offsets: (Q + 1,) from 0 to T.

    Raises:
        ValueError: the shapes disagree, or a query names a relevant item twice.
    """
    if top.ndim != 2 or len(relevant_offsets) != len(top) + 1:
        raise ValueError(
            f"top must be (Q, K) with Q + 1 offsets, "
            f"got top {top.shape} and {len(relevant_offsets)} offsets"
        )
    stride = int(max(top.max(initial=-1), relevant_values.max(initial=-1))) + 1
    queries = np.repeat(np.arange(len(top)), np.diff(relevant_offsets))
    wanted = np.sort(queries * stride + relevant_values.astype(np.int64))
    if np.any(wanted[1:] == wanted[:-1]):
        raise ValueError("a query names a relevant item twice; give distinct items")
    keys = np.arange(len(top))[:, None] * stride + top.astype(np.int64)
    found = np.zeros(top.size, bool)
    if len(wanted):
        place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        candidates = np.flatnonzero((wanted[place] == keys) & (top >= 0))
        # The first place of each (query, item) in reading order is its better rank.
        first = first_places(keys.ravel()[candidates])
        found[candidates[first]] = True
    return found.reshape(top.shape)


def recall_at_k(hits: NDArray[np.bool_], num_relevant: Integers, k: int) -> NDArray[np.float64]:
    """Return hits in the first k over all relevant items, (Q,) float64, NaN where undefined.

    Args:
        hits: (Q, K) from `hits`, K >= k.
        num_relevant: (Q,) relevant items of each query, retrieved or not.
        k: the cut-off.
    """
    return _divide(_first(hits, k).sum(1), num_relevant)


def hit_rate_at_k(hits: NDArray[np.bool_], num_relevant: Integers, k: int) -> NDArray[np.float64]:
    """Return 1 where the first k hold a hit, else 0, (Q,) float64, NaN where undefined."""
    return np.where(num_relevant > 0, _first(hits, k).any(1), np.nan)


def ndcg_at_k(hits: NDArray[np.bool_], num_relevant: Integers, k: int) -> NDArray[np.float64]:
    """Return the discounted gain over the best possible one, (Q,) float64, NaN where undefined.

    Binary gain; the best possible list has min(k, num_relevant) hits on top.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(num_relevant, k)]
    return _divide(_first(hits, k) @ discounts, ideal)


def mrr_at_k(hits: NDArray[np.bool_], num_relevant: Integers, k: int) -> NDArray[np.float64]:
    """Return 1 / rank of the first hit within k, else 0, (Q,) float64, NaN where undefined."""
    first = _first(hits, k)
    reciprocal = np.where(first.any(1), 1 / (first.argmax(1) + 1), 0.0)
    return np.where(num_relevant > 0, reciprocal, np.nan)


def coverage_at_k(top: Integers, num_items: int, k: int) -> float:
    """Return the share of the catalogue that at least one list names in its first k.

    Args:
        top: (Q, K) item rows, -1 where the list is short, K >= k.
        num_items: size of the catalogue.
        k: the cut-off.
    """
    named = _first(top, k)
    return len(distinct(named[named >= 0])) / num_items


def novelty_at_k(top: Integers, item_counts: Integers, k: int) -> float:
    """Return the mean self-information of the recommended items in bits, NaN without any.

    -log2 p(i) with p(i) = (count_i + 1) / (total + n_items): without the added one, a single
    item without interactions would be infinitely novel.

    Args:
        top: (Q, K) item rows, -1 where the list is short, K >= k.
        item_counts: (n_items,) training interactions of each item.
        k: the cut-off.
    """
    named = _first(top, k)
    named = named[named >= 0]
    if not len(named):
        return float("nan")
    bits = np.log2(item_counts.sum() + len(item_counts)) - np.log2(item_counts + 1)
    return float(bits[named].mean())


def _first(table: NDArray[Scalar], k: int) -> NDArray[Scalar]:
    if not 1 <= k <= table.shape[1]:
        raise ValueError(
            f"k must be in 1..{table.shape[1]}, the width of the lists, got {k}; "
            f"pad short lists with -1"
        )
    return table[:, :k]


def _divide(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    quotient = np.full(len(part), np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient
