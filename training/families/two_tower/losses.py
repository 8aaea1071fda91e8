"""The losses of a two-tower: the settings of each, and what it makes of scored vectors.

To add one: its settings and a function here, an entry in `LOSSES`, its settings in `TwoTowerLoss`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from torch import Tensor

from recsys.core.strict import StrictModel, named
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

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


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


class _Sampled(StrictModel):
    whole_catalogue: ClassVar[bool] = False


class Bce(_Sampled):
    """Binary cross-entropy."""

    kind: Literal["bce"] = "bce"
    negative_weight: NotNegative = 1.0
    """Of the mean over the negatives; a positive has 1."""


class Bpr(_Sampled):
    """Bayesian personalised ranking."""

    kind: Literal["bpr"] = "bpr"


class CosineContrastive(_Sampled):
    """SimpleX's loss on cosines."""

    kind: Literal["cosine_contrastive"] = "cosine_contrastive"
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.4
    """Cosine below which a negative is far enough away."""
    negative_weight: NotNegative = 150.0
    """Of the mean over the negatives; a positive has 1."""


class Metric(_Sampled):
    """Collaborative metric learning."""

    kind: Literal["metric"] = "metric"
    margin: Positive = 0.5
    """Squared distance that negatives keep beyond the positive."""
    rank_weight: bool = True
    """Weigh a positive by how many negatives are nearer (WARP)."""
    negatives: Literal["all", "worst"] = "all"
    """Which of a batch's count against an item; `worst` may pull all points together."""
    covariance_weight: NotNegative = 1.0
    """Of a penalty on correlated dimensions."""


TwoTowerLoss = Annotated[
    Annotated[
        SampledSoftmax | FullSoftmax | Bce | Bpr | CosineContrastive | Metric,
        Field(discriminator="kind"),
    ],
    BeforeValidator(named),
]


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
