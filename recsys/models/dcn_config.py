"""Settings of the ranker `recsys.models.dcn`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from recsys.core.bounds import Width
from recsys.layers.choices import Norm
from recsys.models.kind import ModelConfig


class DCNConfig(ModelConfig):
    """Sizes of a `DCN`."""

    kind: Literal["dcn"] = "dcn"
    cross_layers: Annotated[int, Field(ge=0)] = 2
    """Cross layers."""
    hidden: tuple[Width, ...] = (128, 64)
    """Widths of the deep tower."""
    norm: Norm = "batch"
    """Normalisation in each hidden layer of the deep tower: `batch`, `layer` or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the deep tower's hidden layers."""

    @classmethod
    def of_earlier(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing was normalised."""
        return {"norm": "none", **raw}
