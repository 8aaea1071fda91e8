"""What all retrieval models share: they encode items by themselves, and queries over item vectors.

Shape letters: N items, Q queries, E width of a vector, I interests.
"""

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models import session, two_tower
from recsys.models.session import SessionTransformer, SessionTransformerConfig
from recsys.models.two_tower import TwoTower, TwoTowerConfig

_CHUNK_STEPS = 1 << 15

RetrievalConfig = TwoTowerConfig | SessionTransformerConfig
RetrievalModel = TwoTower | SessionTransformer


def build_retrieval(config: RetrievalConfig, embedding: UnifiedEmbedding) -> RetrievalModel:
    """Return the model of these sizes with fresh weights."""
    if isinstance(config, SessionTransformerConfig):
        return SessionTransformer(config, embedding)
    return TwoTower(config, embedding)


def embedded_axes(config: RetrievalConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded rows, for `bundle.transfer`."""
    of_sessions = isinstance(config, SessionTransformerConfig)
    return session.embedded_axes() if of_sessions else two_tower.embedded_axes()


@torch.no_grad()
def catalogue_vectors(
    model: RetrievalModel, items: FeatureBlock, *, chunk_rows: int = 8192
) -> Tensor:
    """Return the vectors of a whole catalogue, (N, E) float32, in evaluation mode."""
    was_training = model.training
    model.eval()
    rows = torch.arange(len(items), device=items.single.device)
    raw = torch.cat([model.raw_items(items.take(chunk)) for chunk in rows.split(chunk_rows)])
    if isinstance(model, SessionTransformer):
        vectors = model.placed(raw)
    else:
        of_users = None
        if model.smoothing is not None:
            users = model.smoothing.users.to(raw.device)
            some = torch.arange(len(users), device=raw.device).split(chunk_rows)
            of_users = torch.cat([model.raw_users(users.take(chunk)) for chunk in some])
        vectors = model.placed_catalogue(raw, of_users)
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


def without_gain(model: RetrievalModel, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    """Part query vectors from what the items of their histories gain, (Q,), if anything.

    What remains, (Q, E) or (Q, I, E), is as wide as an item's vector.
    """
    if isinstance(model, SessionTransformer):
        return model.without_gain(vectors)
    return vectors, None


def vectors_of(
    model: RetrievalModel, query: FeatureBlock, item_vectors: Tensor, history: Jagged | History
) -> Tensor:
    """Return the vectors of some queries, (B, E) or (B, I, E) float32."""
    if isinstance(model, SessionTransformer):
        assert isinstance(history, History), "a model of sessions reads a History"
        return model.encode_queries(query, item_vectors, history).float()
    assert isinstance(history, Jagged), "a two-tower reads a jagged history"
    return model.encode_queries(query, item_vectors, history).float()
