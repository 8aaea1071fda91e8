"""From encoded queries to the best item rows: one path for probes and scoring."""

from typing import Protocol

import torch
from torch import Tensor

from recsys.batch import FeatureBlock, Jagged
from recsys.retrieval.index import Index
from recsys.retrieval.interests import search


class QueryModel(Protocol):
    """What a retrieval model offers: features and history to vectors (B, E)."""

    def encode_queries(self, query: FeatureBlock, item_vectors: Tensor, history: Jagged) -> Tensor:
        """Return (B, E) or (B, I, E); `history` points into `item_vectors` (N, E), oldest first."""


@torch.no_grad()
def recommend(
    model: QueryModel,
    index: Index,
    item_vectors: Tensor,
    query: FeatureBlock,
    history: Jagged,
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
        vectors = model.encode_queries(query.take(rows), item_vectors, history.take(rows)).float()
        seen = exclude.take(rows) if exclude is not None else None
        tops.append(search(index, vectors, k, seen))
    if not tops:
        return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64)
    scores, found = zip(*tops, strict=True)
    return torch.cat(scores), torch.cat(found)
