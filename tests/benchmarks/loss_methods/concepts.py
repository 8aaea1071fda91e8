"""Towers whose first dimensions are declared attributes, so that each explains its part of a score.

Bogdanova and Yazdani, "SESA: Supervised Explicit Semantic Analysis", 2017,
https://arxiv.org/abs/1708.03246, section 3: queries and items are vectors over named concepts, of
which the model learns how much each has, and labelled concepts supervise them. A named dimension
is max(0, logit) here, and the logit of an item learns by a binary cross-entropy whether the item
has the attribute. So no named part of a score is negative, and its summands name their concepts.
Dimensions after the named ones are free.

Shape letters: N items, V named dimensions, E width, B queries, U items of a batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.two_tower import TwoTower, TwoTowerConfig


def most_common(rows: Jagged, count: int) -> Tensor:
    """Return which row has which of its `count` most common values, (N, V) float32."""
    known, code, times = rows.values.unique(return_inverse=True, return_counts=True)
    kept = times.argsort(descending=True, stable=True)[:count]
    member = torch.zeros(len(rows), len(known))
    member[torch.repeat_interleave(torch.arange(len(rows)), rows.lengths()), code] = 1.0
    return member[:, kept]


def named(raw_NE: Tensor, count: int) -> Tensor:
    """Return unit vectors whose first `count` coordinates are at least 0, (N, E)."""
    return F.normalize(torch.cat([raw_NE[:, :count].relu(), raw_NE[:, count:]], dim=1), dim=1)


class ConceptTower(TwoTower):
    """A two-tower on the sphere; `logits`: of the named dimensions of the last items, (U, V)."""

    def __init__(self, config: TwoTowerConfig, embedding: UnifiedEmbedding, count: int) -> None:
        super().__init__(config, embedding)
        self.count, self.logits = count, torch.zeros(0, count)

    def _placed(self, raw_NR: Tensor) -> Tensor:
        self.logits = raw_NR[:, : self.count]
        return named(raw_NR, self.count)

    def _queries(self, query_BV: Tensor, items_UE: Tensor, history: Jagged) -> Tensor:
        return named(super()._queries(query_BV, items_UE, history), self.count)


def concept_loss(logits_NV: Tensor, declared_NV: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of the declared attributes, in nats."""
    return F.binary_cross_entropy_with_logits(logits_NV, declared_NV)
