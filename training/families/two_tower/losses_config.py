"""Settings of the losses of a two-tower (`recsys.training.families.two_tower.losses`)."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from recsys.core.strict import StrictModel, named
from recsys.training.config.retrieval import FullSoftmax, SampledSoftmax

Positive = Annotated[float, Field(gt=0)]


NotNegative = Annotated[float, Field(ge=0)]


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
