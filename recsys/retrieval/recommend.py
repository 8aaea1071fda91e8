"""From encoded queries to the best item rows: one path for probes and scoring."""

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.models.retrieval import RetrievalModel, vectors_of
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.interests import search
from recsys.retrieval.repeats import search_with_repeats


@torch.no_grad()
def recommend(
    model: RetrievalModel,
    index: Index,
    item_vectors: Tensor,
    query: FeatureBlock,
    history: Jagged | History,
    *,
    k: int,
    exclude: Jagged | None,
    chunk_rows: int = 8192,
) -> tuple[Tensor, Tensor]:
    """Return scores (Q, k) float32 and item rows (Q, k) int64, best first; -1 where short.

    `model` must be in evaluation mode; `exclude` holds Q rows of item rows to leave out.
    """
    tops = []
    for rows in torch.arange(len(query)).split(chunk_rows):
        asked = history.take(rows)
        queries = vectors_of(model, query.take(rows), item_vectors, asked)
        seen = exclude.take(rows) if exclude is not None else None
        steps = asked.items if isinstance(asked, History) else None
        tops.append(best_items(model, index, item_vectors, queries, steps, k=k, exclude=seen))
    if not tops:
        return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64)
    scores, items = zip(*tops, strict=True)
    return torch.cat(scores), torch.cat(items)


@torch.no_grad()
def best_items(
    model: RetrievalModel,
    index: Index,
    item_vectors: Tensor,
    queries: Tensor,
    steps: Jagged | None,
    *,
    k: int,
    exclude: Jagged | None,
) -> tuple[Tensor, Tensor]:
    """Return what `recommend` does, for queries that are encoded already.

    Args:
        model: in evaluation mode.
        index: what is searched.
        item_vectors: (N, E) of the catalogue.
        queries: as the model's `encode_queries` gives them, Q of them.
        steps: of a model of sessions: Q rows of the item rows that it saw.
        k: longest list.
        exclude: Q rows of item rows to leave out.
    """
    vectors, gain = model.without_gain(queries)
    if gain is not None and steps is not None:
        return search_with_repeats(index, item_vectors, vectors, gain, steps, k, exclude)
    return search(index, vectors, k, exclude)
