"""Settings of an AutoInt (`recsys.models.autoint`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from recsys.core.bounds import Width
from recsys.layers.choices import Combine, Norm
from recsys.models.kind import ModelConfig

Share = Annotated[float, Field(ge=0, lt=1)]


class AutoIntConfig(ModelConfig):
    """Sizes and options of an `AutoInt`."""

    kind: Literal["autoint"] = "autoint"
    layers: Width = 3
    """Interacting layers."""
    heads: Width = 2
    """Attention heads of a layer."""
    head_dim: Width = 16
    """Width of a head."""
    field_dim: Width = 16
    """Width of every field."""
    combine: Combine = "project"
    """How the lookups of a feature of several become one field."""
    hidden: tuple[Width, ...] = ()
    """Widths of the perceptron of AutoInt+; empty: plain AutoInt."""
    first_order: bool = False
    """Add a linear term of the embedded row."""
    scaled: bool = False
    """Divide attention's inner products by sqrt(head_dim); the paper compares raw ones."""
    field_norm: Norm = "batch"
    """Normalisation of the fields before each interacting layer: `batch`, each number of a field
    over the rows; `layer`, each field by itself; or `none`, as the paper has it. Without any the
    small vectors that decay leaves make all attention even."""
    field_dropout: Share = 0.0
    """Share of the fields' numbers that is dropped in training."""
    attention_dropout: Share = 0.0
    """Of the attention weights."""
    norm: Norm = "batch"
    """Normalisation of what the readout sees, and in each hidden layer of the perceptron: `batch`,
    `layer` or `none`."""
    dropout: Share = 0.0
    """Of the perceptron's hidden layers."""

    @classmethod
    def of_earlier(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Fields alone were normalised, by `layer_norm`."""
        kept = {name: value for name, value in raw.items() if name != "layer_norm"}
        by_layer = "layer" if raw.get("layer_norm") else "none"
        return {"norm": "none", "field_norm": by_layer, **kept}
