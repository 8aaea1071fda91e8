"""Losses that shall keep the vectors of a model that is trained again where they were.

    influence   backward-compatible training (Shen et al., "Towards Backward-Compatible
                Representation Learning", CVPR 2020, https://arxiv.org/abs/2003.11942, equation 4):
                the model's own loss once more, with the earlier model's item vectors as candidates
    items       1 - cosine of an item's vector and the one it had
    fixed       1 - cosine of an item's vector and a target that never changes: a random direction
                by the item's id, or a vertex of the d-simplex by the item's cluster in the first
                model (Pernici et al., "Regular Polytope Networks", TNNLS 2021; Biondi et al.,
                "Stationary Representations", CVPR 2024, https://arxiv.org/abs/2405.02581)

Shape letters: N items, C candidates, E width of a vector, K clusters.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import PairBatch
from recsys.losses.retrieval import Pairs, softmax_loss
from recsys.training.families.two_tower.objective import RetrievalObjective


class Beside(RetrievalObjective):
    """The objective, and a weighted loss on vectors (N, E) that items have beside it.

    An item without one has NaN.
    """

    def __init__(self, beside_NE: Tensor, weight: float, *args: Any) -> None:
        super().__init__(*args)
        self.known = ~beside_NE.isnan().any(1)
        self.beside, self.weight = beside_NE.nan_to_num(0.0), weight

    def _loss(self, query: Tensor, candidate: Tensor, batch: PairBatch, whole: PairBatch) -> Tensor:
        own = super()._loss(query, candidate, batch, whole)
        rows = batch.item_rows[: batch.num_candidates]
        known = self.known[rows]
        return own + self.weight * self.more(query, candidate, batch, self.beside[rows], known)

    def more(
        self, query: Tensor, candidate: Tensor, batch: PairBatch, beside: Tensor, known: Tensor
    ) -> Tensor:
        """Return the loss."""
        raise NotImplementedError


class Influence(Beside):
    """The softmax of the queries over the earlier model's vectors of the candidates."""

    def more(
        self, query: Tensor, candidate: Tensor, batch: PairBatch, beside: Tensor, known: Tensor
    ) -> Tensor:
        """Return the loss; an item that has no earlier vector is neither positive nor negative."""
        pairs = Pairs(batch.asks, batch.positive, batch.weight * known[batch.positive])
        assert batch.log_inclusion is not None
        log_inclusion = torch.where(known, batch.log_inclusion, 1e4)
        scaled = query / self.model.temperature
        return softmax_loss(scaled, beside, pairs, batch.not_negative, log_inclusion)


class Towards(Beside):
    """The mean distance of the candidates from the vectors."""

    def more(
        self, query: Tensor, candidate: Tensor, batch: PairBatch, beside: Tensor, known: Tensor
    ) -> Tensor:
        """Return the loss."""
        apart = 1 - F.cosine_similarity(candidate.float(), beside, dim=1)
        return (apart * known).sum() / known.sum().clamp(min=1)


def random_targets(ids: list[int], dim: int) -> Tensor:
    """Return a unit vector of each id, (N, E), the same whatever the other ids are."""
    drawn = [torch.randn(dim, generator=torch.Generator().manual_seed(one)) for one in ids]
    return F.normalize(torch.stack(drawn), dim=1)


def simplex(dim: int) -> Tensor:
    """Return the E + 1 vertices of the regular simplex around 0, (E + 1, E), of unit length."""
    centred = torch.eye(dim + 1, dtype=torch.float64) - 1 / (dim + 1)
    _, _, basis = torch.linalg.svd(centred)
    return F.normalize(centred @ basis[:dim].T, dim=1).float()


def clusters(vectors_NE: Tensor, count: int, rounds: int = 20) -> Tensor:
    """Return the cluster (N,) of each unit vector, by k-means on the sphere."""
    generator = torch.Generator().manual_seed(0)
    centres = vectors_NE[torch.randperm(len(vectors_NE), generator=generator)[:count]]
    for _ in range(rounds):
        own = (vectors_NE @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add(0, own, vectors_NE)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centres)
    return (vectors_NE @ centres.T).argmax(1)
