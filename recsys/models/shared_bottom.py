"""Several outcomes of a row by one perceptron that all share, and a small one for each.

Caruana, "Multitask Learning", Machine Learning 28, 1997, https://doi.org/10.1023/A:1007379606734,
section 2: the outcomes learn the hidden layers together.

Shape letters: B rows, W width of the embedded row, H width of the shared layers, T outcomes.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from recsys.core.bounds import Width
from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.layers.norm import Norm
from recsys.layers.towers import Towers
from recsys.models.kind import ModelConfig


class SharedBottomConfig(ModelConfig):
    """Sizes of a `SharedBottom`."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 64)
    """Widths of the hidden layers that all outcomes share."""
    towers: tuple[Width, ...] = (32,)
    """Widths of the hidden layers of each outcome's own perceptron; empty: a linear readout."""
    norm: Norm = "batch"
    """Normalisation in each hidden layer: `batch`, `layer` or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the hidden layers."""


class SharedBottom(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(
        self, config: SharedBottomConfig, embedding: nn.Module, width: int, outcomes: int = 1
    ) -> None:
        """Build on `embedding`, which turns one block into one (B, width) tensor."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        # Without the last, linear layer: the towers take its place.
        layers = mlp(width, config.hidden, 1, dropout=config.dropout, norm=config.norm)
        self.bottom = layers[:-1]
        self.towers = Towers(
            outcomes, config.hidden[-1], config.towers, dropout=config.dropout, norm=config.norm
        )

    @property
    def output_bias(self) -> Tensor:
        """What is added to the logits of each outcome, (T,)."""
        return self.towers.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits of each outcome being 1, (B, T), or (B,) of one."""
        seen_BH = self.represent(features)
        logits: Tensor = self.towers([seen_BH] * len(self.output_bias))
        return logits

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the towers see of each row, (B, hidden[-1])."""
        (embedded_BW,) = self.embedding([features])
        hidden: Tensor = self.bottom(embedded_BW)
        return hidden


def embedded_axes(_config: SharedBottomConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded row, for `bundle.transfer`."""
    return {"bottom.0.weight": ((1, 0),)}
