"""Sizes of a transformer (`recsys.layers.transformer`)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel

Activation = Literal["swiglu", "gelu", "relu2"]


Positions = Literal["learned", "rotary", "none"]


class TransformerConfig(StrictModel):
    """Sizes of a `Transformer`."""

    num_blocks: Annotated[int, Field(ge=1)] = 2
    """Blocks of attention and feed-forward part."""
    num_heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads of a block."""
    feedforward: Annotated[float, Field(gt=0)] = 4.0
    """Width inside the feed-forward part over the width outside; a gate costs as much as a third
    of it, so `swiglu` has the same number of weights."""
    activation: Activation = "swiglu"
    """Of the feed-forward part."""
    positions: Positions = "learned"
    """`learned`: a vector for each place in the session; `rotary`: attention sees distances."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of numbers that is dropped in training."""

    @model_validator(mode="after")
    def _inside_is_not_empty(self) -> "TransformerConfig":
        if self.feedforward < 0.1:
            raise ValueError("feedforward is a multiple of the width: 1 to 4 are usual")
        return self

    def check_width(self, dim: int) -> None:
        """Refuse a width that the heads do not share out evenly.

        Raises:
            ValueError: and which widths would do.
        """
        least = self.num_heads * (2 if self.positions == "rotary" else 1)
        if dim % least:
            raise ValueError(
                f"a width of {dim} does not part into {self.num_heads} heads"
                f"{' of even width' if least > self.num_heads else ''}: take a multiple of {least}"
            )
