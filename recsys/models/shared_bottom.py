"""Several outcomes of a row by one perceptron that all share, and a small one for each.

Caruana, "Multitask Learning", Machine Learning 28, 1997, https://doi.org/10.1023/A:1007379606734,
section 2: the outcomes learn the hidden layers together.

Shape letters: B rows, W width of the embedded row, H width of the shared layers, T outcomes.
"""

from torch import Tensor, nn

from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.layers.towers import Towers
from recsys.models.shared_bottom_config import SharedBottomConfig


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
