"""Settings of the ranker `recsys.models.finalmlp`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.core.bounds import Width
from recsys.layers.choices import Norm
from recsys.models.kind import ModelConfig

Widths = Annotated[tuple[Width, ...], Field(min_length=1)]


class FinalMLPConfig(ModelConfig):
    """Sizes of a `FinalMLP`."""

    kind: Literal["finalmlp"] = "finalmlp"
    hidden: Widths = (400, 400)
    """Widths of the hidden layers of the first stream."""
    second_hidden: Widths = (400,)
    """Of the second stream."""
    heads: Width = 8
    """Parts into which what either stream found is cut for the bilinear form."""
    gate_hidden: Annotated[int, Field(ge=0)] = 0
    """Width of the hidden layer of the gates, which weigh the row for each stream; 0: no gates."""
    norm: Norm = "batch"
    """Normalisation in each hidden layer: `batch`, `layer` or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Of the hidden layers."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for name, widths in (("hidden", self.hidden), ("second_hidden", self.second_hidden)):
            if widths[-1] % self.heads:
                raise ValueError(
                    f"model.{name} ends with {widths[-1]}, which {self.heads} heads do not "
                    "divide: choose another width, or other model.heads"
                )
        return self
