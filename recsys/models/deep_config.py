"""Settings of the ranker `recsys.models.deep`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from recsys.core.bounds import Width
from recsys.layers.choices import Norm
from recsys.models.kind import ModelConfig


class DeepConfig(ModelConfig):
    """Sizes of a `Deep`."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Width, ...] = (128, 64)
    """Widths of the hidden layers."""
    norm: Norm = "batch"
    """Normalisation in each hidden layer: `batch`, `layer` or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the hidden layers."""

    @classmethod
    def of_earlier(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing was normalised."""
        return {"norm": "none", **raw}
