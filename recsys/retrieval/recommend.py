"""From encoded queries to the best item rows: one path for probes and scoring."""

from functools import reduce

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.models.retrieval import RetrievalModel, vectors_of
from recsys.retrieval.among import Among, best_of_lists
from recsys.retrieval.gains import joined, search_with_gains
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.interests import search
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.passing import Passing, where
from recsys.retrieval.repeats import repeat_gains

CHUNK_ROWS = 8192
"""Queries that are encoded and searched together."""
MEMORY_ROWS = 1024
"""The same with a memory, which names up to a thousand items for each query: kilobytes."""


@torch.no_grad()
def recommend(
    model: RetrievalModel,
    index: Index,
    item_vectors: Tensor,
    query: FeatureBlock,
    history: Jagged | History,
    *,
    k: int,
    exclude: Jagged | Passing | None,
    memory: PairMemory | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scores (Q, k) float32 and item rows (Q, k) int64, best first; -1 where short.

    `model` must be in evaluation mode; `exclude` holds Q rows of item rows to leave out, or says
    which items pass; `memory` adds what followed the last items before.
    """
    scores, rows, _ = recommend_with_queries(
        model, index, item_vectors, query, history, k=k, exclude=exclude, memory=memory
    )
    return scores, rows


@torch.no_grad()
def recommend_with_queries(
    model: RetrievalModel,
    index: Index,
    item_vectors: Tensor,
    query: FeatureBlock,
    history: Jagged | History,
    *,
    k: int,
    exclude: Jagged | Passing | None,
    memory: PairMemory | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `recommend` does, and what was searched with, (Q, E) or (Q, I, E)."""
    tops = []
    for rows in torch.arange(len(query)).split(CHUNK_ROWS if memory is None else MEMORY_ROWS):
        asked = history.take(rows)
        queries = vectors_of(model, query.take(rows), item_vectors, asked)
        seen = exclude.take(rows) if exclude is not None else None
        steps = asked.items if isinstance(asked, History) else asked
        vectors, gain = model.without_gain(queries)
        gains = gains_of(steps, gain, memory)
        found = best_items(index, item_vectors, vectors, gains, k=k, exclude=seen)
        tops.append((*found, vectors))
    if not tops:
        width = item_vectors.shape[1]
        return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64), torch.zeros(0, width)
    scores, items, searched = zip(*tops, strict=True)
    return torch.cat(scores), torch.cat(items), torch.cat(searched)


def gains_of(history: Jagged, gain_Q: Tensor | None, memory: PairMemory | None) -> Jagged | None:
    """Return what items gain beyond their vectors, as `search_with_gains` reads; None: nothing.

    Args:
        history: Q rows of item rows, oldest first.
        gain_Q: (Q,) what the items of a history gain by being in it.
        memory: what followed the last items before.
    """
    found = [] if gain_Q is None else [repeat_gains(history, gain_Q)]
    found += [] if memory is None else [memory.gains(history)]
    return reduce(joined, found) if found else None


def best_items(
    index: Index,
    item_vectors: Tensor,
    vectors: Tensor,
    gains: Jagged | None,
    *,
    k: int,
    exclude: Jagged | Passing | None,
) -> tuple[Tensor, Tensor]:
    """Return what `recommend` does, for queries that are encoded already.

    Args:
        index: what is searched.
        item_vectors: (N, E) of the catalogue.
        vectors: (Q, E) or (Q, I, E) of the queries.
        gains: as `gains_of` gives them.
        k: longest list.
        exclude: Q rows of item rows to leave out, or which items pass.
    """
    if isinstance(exclude, Passing):
        return _best_passing(index, item_vectors, vectors, gains, k=k, passing=exclude)
    if gains is None:
        return search(index, vectors, k, exclude)
    return search_with_gains(index, item_vectors, vectors, gains, k, exclude)


def _best_passing(
    index: Index,
    item_vectors: Tensor,
    vectors: Tensor,
    gains: Jagged | None,
    *,
    k: int,
    passing: Passing,
) -> tuple[Tensor, Tensor]:
    """Return what `best_items` does; queries of one set of items are searched together."""
    scores = torch.full((len(passing), k), -torch.inf)
    rows = torch.full((len(passing), k), -1)
    hidden = passing.hidden()
    for number, queries in passing.groups():
        among = Among(index, item_vectors, torch.from_numpy(passing.mask(number)))
        own = None
        if gains is not None:
            own = gains.take(queries)
            own = where(own, among.passes[own.values])
        scores[queries], rows[queries] = best_items(
            among, item_vectors, vectors[queries], own, k=k, exclude=hidden.take(queries)
        )
    limited = passing.is_limited.nonzero().flatten()
    if len(limited):
        own = None if gains is None else gains.take(limited)
        lists = passing.take(limited).limits()
        scores[limited], rows[limited] = best_of_lists(
            item_vectors, vectors[limited], own, lists, k
        )
    return scores, rows
