"""A multi-layer perceptron over the embedded row: the plain deep ranker.

Shape letters: B rows, W width of the embedded row.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from recsys.core.bounds import Width
from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.layers.norm import Norm
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


class Deep(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(self, config: DeepConfig, embedding: nn.Module, width: int) -> None:
        """Build on `embedding`, which turns one block into one (B, width) tensor."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.deep = mlp(width, config.hidden, 1, dropout=config.dropout, norm=config.norm)

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        last = self.deep[-1]
        assert isinstance(last, nn.Linear)
        return last.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        (embedded_BW,) = self.embedding([features])
        logits: Tensor = self.deep(embedded_BW).squeeze(1)
        return logits.float()

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the last layer sees of each row, (B, hidden[-1])."""
        (embedded_BW,) = self.embedding([features])
        hidden: Tensor = self.deep[:-1](embedded_BW)
        return hidden


def embedded_axes(_config: DeepConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded row, for `bundle.transfer`."""
    return {"deep.0.weight": ((1, 0),)}
