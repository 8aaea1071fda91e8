"""FinalMLP: two perceptrons over the same row, and a bilinear form of what they find.

Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023,
https://arxiv.org/abs/2304.00902. Section 3.2 gates the features of each stream, equations 4 and
5; section 3.3 fuses the streams head by head, equations 7 and 8:

    logit = b + w_1 . o_1 + w_2 . o_2 + sum over heads h of o_1h W_h o_2h

The paper's gates read features that are chosen for each stream, such as those of the user and
those of the item; here either gate reads the whole row.

Shape letters: B rows, W width of the embedded row, O and P widths of the streams, H heads.
"""

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.models.finalmlp_config import FinalMLPConfig


class Gate(nn.Module):
    """Weights between 0 and 2 for the numbers of a row, read from the row."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.weights = mlp(width, (hidden,), width, dropout=0.0)

    def forward(self, x_BW: Tensor) -> Tensor:
        """Return the weighed row, (B, W)."""
        return x_BW * (2 * torch.sigmoid(self.weights(x_BW)))


class Fusion(nn.Module):
    """A linear term of two vectors and a bilinear one, head by head."""

    def __init__(self, first: int, second: int, heads: int) -> None:
        super().__init__()
        self.sizes, self.heads = (first, second), heads
        self.linear = nn.Linear(first + second, 1)
        parts = (first // heads, second // heads)
        self.bilinear = nn.Parameter(torch.empty(heads, *parts))
        bound = (6 / sum(parts)) ** 0.5
        nn.init.uniform_(self.bilinear, -bound, bound)

    def forward(self, both_BC: Tensor) -> Tensor:
        """Return logits (B, 1) of both vectors next to each other, (B, O + P)."""
        first_HBO, second_HBP = (
            part.unflatten(1, (self.heads, -1)).transpose(0, 1)
            for part in both_BC.split(self.sizes, dim=1)
        )
        products_HB = ((first_HBO @ self.bilinear) * second_HBP).sum(2)
        logits: Tensor = self.linear(both_BC) + products_HB.sum(0).unsqueeze(1)
        return logits


class FinalMLP(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(self, config: FinalMLPConfig, embedding: nn.Module, width: int) -> None:
        """Build on `embedding`, which turns one block into one (B, width) tensor."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        both = (config.hidden, config.second_hidden)
        gated = bool(config.gate_hidden)
        self.gates = nn.ModuleList(Gate(width, config.gate_hidden) for _ in both if gated)
        # Without the last, linear layer: the fusion takes its place.
        self.streams = nn.ModuleList(
            mlp(width, hidden, 1, dropout=config.dropout, norm=config.norm)[:-1] for hidden in both
        )
        self.fusion = Fusion(config.hidden[-1], config.second_hidden[-1], config.heads)

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        return self.fusion.linear.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        logits: Tensor = self.fusion(self.represent(features)).squeeze(1)
        return logits.float()

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the fusion sees of each row: both streams, (B, O + P)."""
        (x_BW,) = self.embedding([features])
        inputs = [gate(x_BW) for gate in self.gates] or [x_BW, x_BW]
        return torch.cat(
            [stream(one_BW) for stream, one_BW in zip(self.streams, inputs, strict=True)], dim=1
        )


def embedded_axes(config: FinalMLPConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded row, for `bundle.transfer`."""
    axes: dict[str, tuple[tuple[int, int], ...]] = {}
    for stream in range(2):
        axes[f"streams.{stream}.0.weight"] = ((1, 0),)
        if config.gate_hidden:
            gate = f"gates.{stream}.weights"
            axes[f"{gate}.0.weight"] = ((1, 0),)
            axes |= {f"{gate}.3.weight": ((0, 0),), f"{gate}.3.bias": ((0, 0),)}
    return axes
