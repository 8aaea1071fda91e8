"""A multi-layer perceptron over the embedded row: the plain deep ranker.

Shape letters: B rows, W width of the embedded row.
"""

from torch import Tensor, nn

from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.models.deep_config import DeepConfig


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
