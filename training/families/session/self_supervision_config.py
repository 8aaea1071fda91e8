"""Self-supervision of a model of sessions as a configuration names it; a weight of 0 is none."""

from typing import Annotated

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel
from recsys.data.feature_options import Name

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
MaskedShare = Annotated[float, Field(gt=0, lt=1)]


class MaskedItems(StrictModel):
    """Predict which items were masked, from both sides of them."""

    weight: Weight = 0.0
    """Of this loss; 0: none."""
    share: MaskedShare = 0.2
    """Of each session's steps; one at least is masked, and one is left."""


class MaskedAttributes(StrictModel):
    """Predict the values of item features at masked steps, from both sides of them."""

    weight: Weight = 0.0
    """Of each feature's loss."""
    share: MaskedShare = 0.2
    """Of each session's steps; of two shares the smaller one is within the larger."""
    features: tuple[Name, ...] = ()
    """Item features that are masked; empty: all that can be."""

    @model_validator(mode="after")
    def _each_once(self) -> "MaskedAttributes":
        if self.weight and not self.features:
            raise ValueError("masked_attributes asks for no feature: name some, or set weight: 0")
        for name in self.features:
            if self.features.count(name) > 1:
                raise ValueError(f"masked_attributes: features names '{name}' twice")
        return self


class SessionContrast(StrictModel):
    """Two views of a session know each other among those of the batch.

    Each is cropped, masked or reordered, one of these drawn for each view, with equal chance, among
    those that are not switched off.
    """

    weight: Weight = 0.0
    """Of this loss; 0: none."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """What cosines are divided by before the softmax."""
    crop: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the steps, side by side, that a cropped view keeps; 1 switches it off."""
    mask: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the steps that a masked view has masked; 0 switches it off."""
    reorder: Share = 0.2
    """Share of the steps, side by side, that a reordered view has shuffled; 0 switches it off."""

    @model_validator(mode="after")
    def _views_differ(self) -> "SessionContrast":
        if self.weight and not (self.crop < 1 or self.mask or self.reorder):
            raise ValueError(
                "contrastive: with crop: 1, mask: 0 and reorder: 0 both views are the session "
                "itself: switch one on, or set weight: 0"
            )
        return self


class SessionSelfSupervision(StrictModel):
    """Losses without labels, added to that of the next item, whose weight is 1."""

    masked_items: MaskedItems = MaskedItems()
    masked_attributes: MaskedAttributes = MaskedAttributes()
    contrastive: SessionContrast = SessionContrast()

    @property
    def is_on(self) -> bool:
        """Whether any of them has a weight."""
        weights = (self.masked_items.weight, self.masked_attributes.weight, self.contrastive.weight)
        return any(weights)
