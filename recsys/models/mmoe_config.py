"""Settings of the ranker `recsys.models.mmoe`."""

from typing import Annotated, Literal

from pydantic import Field

from recsys.core.bounds import Width
from recsys.layers.choices import Norm
from recsys.models.kind import ModelConfig


class MMoEConfig(ModelConfig):
    """Sizes of an `MMoE`."""

    kind: Literal["mmoe"] = "mmoe"
    experts: Width = 4
    """Perceptrons that all outcomes share, each outcome by weights of its own."""
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 64)
    """Widths of the hidden layers of an expert."""
    towers: tuple[Width, ...] = (32,)
    """Widths of the hidden layers of each outcome's own perceptron; empty: a linear readout."""
    norm: Norm = "batch"
    """Normalisation in each hidden layer: `batch`, `layer` or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the hidden layers."""
