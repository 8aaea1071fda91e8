"""Two towers over one unified embedding: who asks, and what there is to take.

The sampling-bias-corrected two-tower of Yi et al., "Sampling-Bias-Corrected Neural Modeling
for Large Corpus Item Recommendations", RecSys 2019, section 3, over the unified embedding of
Coleman et al. 2023. Both towers end on the unit sphere; a logit is the cosine over a temperature.

The query tower sees the user's and the request's features and the history, pooled over the
*candidate tower's* vectors of the items taken: history and candidates share every parameter,
an item without a training row counts in a history by its features, and at serving time a
history costs no table lookup, only rows of the item vectors.

Shape letters: B queries, U distinct items, C <= U candidates, E width out, V and W widths in.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.batch import FeatureBlock, Jagged, PairBatch
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.mlp import mlp
from recsys.layers.pooling import RecencyPooling
from recsys.strict import StrictModel

ITEMS, QUERY = 0, 1
"""The sides of the embedding's plan, in order."""

Width = Annotated[int, Field(ge=1)]


class TwoTowerConfig(StrictModel):
    """Sizes of a `TwoTower`."""

    kind: Literal["two_tower"] = "two_tower"
    dim: Width = 64
    """Width of query and item vectors, and of the index."""
    hidden: tuple[Width, ...] = (128,)
    history_length: Width = 50
    """How many of the last events the query tower sees."""
    history_heads: Width = 3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 0.07
    learn_temperature: bool = True


class TwoTower(nn.Module):
    """Query and candidate tower; knows nothing of losses, optimizers or data."""

    def __init__(self, config: TwoTowerConfig, embedding: UnifiedEmbedding) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.candidate = mlp(
            embedding.plan.width(ITEMS), config.hidden, config.dim, dropout=config.dropout
        )
        self.history = RecencyPooling(config.history_heads, config.history_length)
        query_dim = embedding.plan.width(QUERY) + config.history_heads * config.dim + 1
        self.query = mlp(query_dim, config.hidden, config.dim, dropout=config.dropout)
        log_temperature = torch.tensor(math.log(config.temperature))
        self.log_temperature = nn.Parameter(log_temperature, config.learn_temperature)

    @property
    def temperature(self) -> Tensor:
        """What cosines are divided by, a positive scalar."""
        return self.log_temperature.exp()

    def forward(
        self, batch: PairBatch, gather: Callable[[Tensor, int], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return unit vectors of queries (B, E) and of candidates (C, E).

        `gather` makes the vectors of all U items from those of the batch's own, where items are
        shared out among processes: (n, E) and U to (U, E).
        """
        items_UW, query_BV = self.embedding([batch.items, batch.query])
        items_UE = F.normalize(self.candidate(items_UW).float(), dim=1)
        if gather is not None:
            items_UE = gather(items_UE, len(batch.item_rows))
        query_BE = self._queries(query_BV, items_UE, batch.history)
        return query_BE, items_UE[: batch.num_candidates]

    def encode_items(self, items: FeatureBlock) -> Tensor:
        """Return unit vectors (N, E)."""
        return F.normalize(self.candidate(self.embedding.side(ITEMS, items)).float(), dim=1)

    def encode_queries(self, query: FeatureBlock, item_vectors: Tensor, history: Jagged) -> Tensor:
        """Return unit vectors (B, E); history points into `item_vectors` (N, E), oldest first."""
        return self._queries(self.embedding.side(QUERY, query), item_vectors, history)

    def _queries(self, query_BV: Tensor, items_UE: Tensor, history: Jagged) -> Tensor:
        pooled_BHE = self.history(items_UE, history)
        length_B1 = history.lengths().float().log1p().unsqueeze(1)
        inputs = torch.cat([query_BV, pooled_BHE.flatten(1), length_B1], dim=1)
        # A user tends to take what resembles what they took: the tower learns the difference.
        return F.normalize(self.query(inputs).float() + pooled_BHE.mean(1), dim=1)


@torch.no_grad()
def catalogue_vectors(model: TwoTower, items: FeatureBlock, *, chunk_rows: int = 8192) -> Tensor:
    """Return the unit vectors of a whole catalogue, (N, E) float32, in evaluation mode."""
    was_training = model.training
    model.eval()
    rows = torch.arange(len(items), device=items.single.device)
    vectors = [model.encode_items(items.take(chunk)).float() for chunk in rows.split(chunk_rows)]
    model.train(was_training)
    return torch.cat(vectors)


@torch.no_grad()
def query_vectors(
    model: TwoTower,
    query: FeatureBlock,
    item_vectors: Tensor,
    history: Jagged,
    *,
    chunk_rows: int = 8192,
) -> Tensor:
    """Return the unit vectors of many queries, (Q, E) float32, in evaluation mode."""
    was_training = model.training
    model.eval()
    rows = torch.arange(len(query), device=query.single.device)
    vectors = [
        model.encode_queries(query.take(chunk), item_vectors, history.take(chunk)).float()
        for chunk in rows.split(chunk_rows)
    ]
    model.train(was_training)
    return torch.cat(vectors)


def embedded_axes() -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded rows, as `recsys.transfer` asks."""
    return {"candidate.0.weight": ((1, ITEMS),), "query.0.weight": ((1, QUERY),)}
