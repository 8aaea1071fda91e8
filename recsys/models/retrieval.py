"""What all retrieval models share: they encode items by themselves, and queries over item vectors.

Shape letters: N items, Q queries, E width of a vector, I interests.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.retrieval_kinds import RETRIEVAL, RetrievalConfig
from recsys.models.session import SessionTransformer
from recsys.models.two_tower import TwoTower

_CHUNK_STEPS = 1 << 15

RetrievalModel = TwoTower | SessionTransformer


def build_retrieval(config: RetrievalConfig, embedding: UnifiedEmbedding) -> RetrievalModel:
    """Return the model of these sizes with fresh weights."""
    model: Any = RETRIEVAL[config.kind].build(config, embedding)
    found: RetrievalModel = model
    return found


@torch.no_grad()
def catalogue_vectors(
    model: RetrievalModel, items: FeatureBlock, *, chunk_rows: int = 8192
) -> Tensor:
    """Return the vectors of a whole catalogue, (N, E) float32, in evaluation mode."""
    was_training = model.training
    model.eval()
    rows = torch.arange(len(items), device=items.single.device)
    raw = torch.cat([model.raw_items(items.take(chunk)) for chunk in rows.split(chunk_rows)])
    vectors = model.placed_catalogue(raw, chunk_rows=chunk_rows)
    model.train(was_training)
    return vectors


@torch.no_grad()
def query_vectors(
    model: RetrievalModel,
    query: FeatureBlock,
    item_vectors: Tensor,
    history: Jagged | History,
    *,
    chunk_rows: int = 8192,
) -> Tensor:
    """Return the vectors of many queries, (Q, E) or (Q, I, E) float32, in evaluation mode.

    `query` and `history` are what the kind of the model reads: a `History` for sessions. At most
    `chunk_rows` queries are encoded at once, of some 30,000 steps of history: a step of a session
    costs kilobytes on its way through the model.
    """
    was_training = model.training
    model.eval()
    vectors = [
        vectors_of(model, query.take(chunk), item_vectors, history.take(chunk))
        for chunk in _chunks(history.lengths(), chunk_rows)
    ]
    model.train(was_training)
    return torch.cat(vectors)


def _chunks(lengths_Q: Tensor, chunk_rows: int) -> tuple[Tensor, ...]:
    """Part queries, in order, by their number and by the length of their histories."""
    rows = torch.arange(len(lengths_Q), device=lengths_Q.device)
    before = lengths_Q.cumsum(0) - lengths_Q
    chunk = torch.stack([rows // chunk_rows, before // _CHUNK_STEPS])
    sizes = chunk.unique_consecutive(dim=1, return_counts=True)[1].tolist()
    return rows.split(sizes or [0])


def vectors_of(
    model: RetrievalModel, query: FeatureBlock, item_vectors: Tensor, history: Jagged | History
) -> Tensor:
    """Return the vectors of some queries, (B, E) or (B, I, E) float32."""
    encode: Callable[[FeatureBlock, Tensor, Any], Tensor] = model.encode_queries
    return encode(query, item_vectors, history).float()
