"""How retrieval is trained: its loss and where its negatives come from."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from recsys.core.strict import StrictModel

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class SampledSoftmax(StrictModel):
    """Softmax over the batch's candidates, corrected for how they were sampled."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"


class FullSoftmax(StrictModel):
    """Softmax over the whole catalogue, encoded at every step: for small catalogues."""

    kind: Literal["full_softmax"]


class Bce(StrictModel):
    """Binary cross-entropy."""

    kind: Literal["bce"]
    negative_weight: NotNegative = 1.0
    """Of the mean over the negatives, beside a positive's 1."""


class Bpr(StrictModel):
    """Bayesian personalised ranking."""

    kind: Literal["bpr"]


class CosineContrastive(StrictModel):
    """SimpleX's loss on cosines."""

    kind: Literal["cosine_contrastive"]
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.4
    """Cosine below which a negative is far enough away."""
    negative_weight: NotNegative = 150.0


class Metric(StrictModel):
    """Collaborative metric learning."""

    kind: Literal["metric"]
    margin: Positive = 0.5
    """Squared distance that negatives keep beyond the positive."""
    rank_weight: bool = True
    negatives: Literal["all", "worst"] = "all"
    """Which of a batch's count against an item; `worst` may pull all points together."""
    covariance_weight: NotNegative = 1.0


class Gbce(StrictModel):
    """Generalised binary cross-entropy, of sessions; its negatives are drawn uniformly."""

    kind: Literal["gbce"]
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """0: plain binary cross-entropy, sure of itself; 1: as sure as the full softmax."""


def _named(value: Any) -> Any:
    """A loss may be given by its name alone."""
    return {"kind": value} if isinstance(value, str) else value


RetrievalLoss = Annotated[
    Annotated[
        SampledSoftmax | FullSoftmax | Bce | Bpr | CosineContrastive | Metric | Gbce,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_named),
]


class HardNegatives(StrictModel):
    """Items that the model would show to a batch's users, mined as training goes on."""

    count: Annotated[int, Field(ge=0)] = 0
    """Searched for each query; of all that are found, up to 64 x `count` join the batch."""
    every: Annotated[int, Field(ge=1)] = 100
    """Steps between two snapshots of the item vectors that are searched."""


LogqCorrection = bool | Literal["streaming"]
"""Whether the loss undoes how sampling draws candidates, and whether it is counted as it goes."""
