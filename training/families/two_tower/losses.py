"""The losses of a two-tower: the settings of each, and what it makes of scored vectors.

To add one: a function here and an entry in `LOSSES`, its settings in `losses_config.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from recsys.data.batch import Jagged
from recsys.layers.geometry import points_of
from recsys.losses.retrieval import (
    Negatives,
    Pairs,
    bce_loss,
    bpr_loss,
    cosine_contrastive_loss,
    covariance_loss,
    metric_loss,
    softmax_loss,
)
from recsys.models.two_tower import TwoTower
from recsys.training.config.retrieval import FullSoftmax, SampledSoftmax
from recsys.training.families.two_tower.losses_config import Bce, Bpr, CosineContrastive, Metric


@dataclass(frozen=True)
class Encoded:
    """Vectors that the towers made of a batch, and what is known of them.

    queries: (B, E), or (B, I, E) of several interests. candidates: (C, E). pairs: of queries and
    the candidates they find. not_negative: B rows of candidates. log_probability: of being drawn,
    (C,); None: not to be corrected. num_items: size of the catalogue.
    """

    queries: Tensor
    candidates: Tensor
    pairs: Pairs
    not_negative: Jagged
    log_probability: Tensor | None
    model: TwoTower
    num_items: int

    @property
    def scaled(self) -> Tensor:
        """The queries, divided by the model's temperature."""
        return self.queries / self.model.temperature

    @property
    def negatives(self) -> Negatives:
        """Which candidates are negatives, and what each counts."""
        return Negatives.of(self.not_negative, len(self.candidates), self.log_probability)


def _sampled_softmax(_: SampledSoftmax, made: Encoded) -> Tensor:
    return softmax_loss(
        made.scaled, made.candidates, made.pairs, made.not_negative, made.log_probability
    )


def _full_softmax(_: FullSoftmax, made: Encoded) -> Tensor:
    return softmax_loss(made.scaled, made.candidates, made.pairs, made.not_negative, None)


def _bce(loss: Bce, made: Encoded) -> Tensor:
    return bce_loss(made.scaled, made.candidates, made.pairs, made.negatives, loss.negative_weight)


def _bpr(_: Bpr, made: Encoded) -> Tensor:
    return bpr_loss(made.scaled, made.candidates, made.pairs, made.negatives)


def _cosine_contrastive(loss: CosineContrastive, made: Encoded) -> Tensor:
    return cosine_contrastive_loss(
        made.queries,
        made.candidates,
        made.pairs,
        made.negatives,
        margin=loss.margin,
        negative_weight=loss.negative_weight,
    )


def _metric(loss: Metric, made: Encoded) -> Tensor:
    hinge = metric_loss(
        made.queries,
        made.candidates,
        made.pairs,
        made.negatives,
        margin=loss.margin,
        num_items=made.num_items,
        rank_weight=loss.rank_weight,
        worst=loss.negatives == "worst",
    )
    geometry = made.model.config.geometry
    spread = covariance_loss(points_of(made.queries.float(), geometry).flatten(0, -2))
    spread = spread + covariance_loss(points_of(made.candidates.float(), geometry))
    return hinge + loss.covariance_weight * spread


LOSSES: dict[str, Callable[[Any, Encoded], Tensor]] = {
    "sampled_softmax": _sampled_softmax,
    "full_softmax": _full_softmax,
    "bce": _bce,
    "bpr": _bpr,
    "cosine_contrastive": _cosine_contrastive,
    "metric": _metric,
}
"""By `training.loss.kind`: settings and vectors to a scalar."""
