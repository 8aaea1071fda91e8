"""Self-supervision as a configuration names it, whatever has two views."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel


class SelfSupervision(StrictModel):
    """A loss without labels, added to that of the labels (`training.self_supervision`).

    Each family that has it says what the views are of.
    """

    kind: Literal["none", "contrastive", "spread_out"] = "none"
    """`contrastive`: two views of a thing, each with other features masked, know each other;
    `spread_out`: things differ, nothing is masked."""
    masking: Literal["random", "correlated", "none"] = "correlated"
    """Half of the features, or a feature with those that predict it best; `none`: `dropout`
    alone makes both views."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the values of multi-valued features left out of a view; with `masking: none`,
    share of the features masked in a row of a view."""
    weight: Annotated[float, Field(ge=0)] = 0.01
    """Of this loss; the task's own has 1."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """What cosines are divided by before the softmax of `contrastive`."""
    batch_size: Annotated[int, Field(ge=2)] = 512
    """Items drawn a step, or rows of the batch, compared with each other."""

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if self.kind == "contrastive" and self.masking == "none" and not self.dropout:
            raise ValueError(
                "masking: none without dropout makes two views that are the same: set dropout"
            )
        return self
