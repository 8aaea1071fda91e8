"""Slices of an evaluation: items by popularity, users by history, sessions by their length.

A slice is a value for each query, NaN for those that are not in it, so that two rankers are
compared on the same queries. Shape letters: Q queries, K length of the lists, n_items items.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.batch import History, Jagged
from recsys.features.dataset.queries import Queries
from recsys.metrics.ranking import hits, recall_at_k
from recsys.training.config.retrieval import RetrievalEvaluationConfig

SLICE_K = 20
Ranges = tuple[tuple[int, int | None], ...]
HISTORY_SLICES: Ranges = ((0, 0), (1, 4), (5, 19), (20, None))
_SESSION_SLICES: Ranges = ((0, 0), (1, 1), (2, 4), (5, 9), (10, 19), (20, None))
_COUNT_SLICES: Ranges = ((1, 9), (10, 99), (100, 999), (1000, None))


def slice_k(config: RetrievalEvaluationConfig) -> int:
    """Return the cut-off of the slices' recall: 20 where it is computed, else the first."""
    return SLICE_K if SLICE_K in config.ks else config.ks[0]


def slice_recall(
    top: NDArray[np.integer],
    per_query: Mapping[str, NDArray[np.float64]],
    train_counts: NDArray[np.int64],
    queries: Queries,
    config: RetrievalEvaluationConfig,
) -> dict[str, NDArray[np.float64]]:
    """Return the recall at `slice_k` within each slice, name -> (Q,) float64, NaN outside.

    Of slices of items: that of the relevant items inside. Slices without any query are left out.

    Args:
        top: (Q, K) item rows, best first, -1 where the list is short.
        per_query: the metrics of each query, recall at `slice_k` among them.
        train_counts: (n_items,) training rows of each item.
        queries: those that were answered.
        config: the cut-offs.
    """
    k = slice_k(config)
    found = {}
    for name, members in {**item_slices(train_counts), **count_slices(train_counts)}.items():
        relevant = only(queries.relevant, members)
        hit = hits(np.asarray(top), relevant.values.numpy(), relevant.offsets.numpy())
        found[name] = recall_at_k(hit, relevant.lengths().numpy(), k)
    recall = per_query[f"recall_at_{k}"]
    for name, inside in _query_slices(queries).items():
        found[name] = np.where(inside, recall, np.nan)
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def item_slices(train_counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Part the catalogue by training rows, name -> (n_items,) bool.

    Head, torso and tail each hold a third of the training rows, most popular items first; cold
    items have none.
    """
    order = np.argsort(-train_counts, kind="stable")
    before = np.cumsum(train_counts[order]) - train_counts[order]
    third = np.empty(len(order), np.int64)
    third[order] = np.minimum(before * 3 // max(int(train_counts.sum()), 1), 2)
    warm = train_counts > 0
    names = ("head", "torso", "tail")
    slices = {f"items: {name}": warm & (third == part) for part, name in enumerate(names)}
    return {**slices, "items: cold": ~warm}


def count_slices(train_counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Part the catalogue by how many training rows an item has, name -> (n_items,) bool."""
    return {
        f"item counts: {words} rows": inside
        for words, inside in ranges(train_counts, _COUNT_SLICES).items()
    }


def only(relevant: Jagged, members: NDArray[np.bool_]) -> Jagged:
    """Return the rows of `relevant` without the items that are no `members` (n_items,)."""
    values, offsets = relevant.values.numpy(), relevant.offsets.numpy()
    inside = np.concatenate([[0], np.cumsum(members[values])])[offsets]
    return Jagged(torch.from_numpy(values[members[values]]), torch.from_numpy(inside))


def ranges(numbers: NDArray[np.int64], bounds: Ranges) -> dict[str, NDArray[np.bool_]]:
    """Return which of `numbers` are in each range, by its name."""
    found = {}
    for low, high in bounds:
        words = f"{low:,}+" if high is None else f"{low}" if low == high else f"{low}-{high}"
        found[words] = (numbers >= low) & (high is None or numbers <= high)
    return found


def _query_slices(queries: Queries) -> dict[str, NDArray[np.bool_]]:
    """Part the queries by a user's earlier events, and by a session's steps so far."""
    members = {
        f"users: {words} events": inside
        for words, inside in ranges(queries.seen.lengths().numpy(), HISTORY_SLICES).items()
    }
    if isinstance(queries.history, History):
        steps = ranges(queries.history.lengths().numpy(), _SESSION_SLICES)
        members |= {
            f"sessions: {words} step{'' if words == '1' else 's'}": inside
            for words, inside in steps.items()
        }
    return members
