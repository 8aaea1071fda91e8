"""DCN-V2: cross layers next to a deep tower, over the unified embedding.

Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, https://arxiv.org/abs/2008.13535,
section 3: x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, in the parallel structure. It takes an input of
any width, so features may have multiplicities of their own.

Shape letters: B rows, W width of the embedded row.
"""

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.layers.norm import norm_of, takes_bias_off
from recsys.models.dcn_config import DCNConfig


class DCN(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(self, config: DCNConfig, embedding: nn.Module, width: int) -> None:
        """Build on `embedding`, which turns one block into one (B, width) tensor."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(config.cross_layers))
        self.deep = mlp(
            width,
            config.hidden[:-1],
            config.hidden[-1],
            dropout=config.dropout,
            norm=config.norm,
            bias=not takes_bias_off(config.norm),
        )
        self.deep_norm = nn.Sequential(*norm_of(config.norm, config.hidden[-1]))
        self.out = nn.Linear(width + config.hidden[-1], 1)

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        return self.out.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        logits: Tensor = self.out(self.represent(features)).squeeze(1)
        return logits.float()

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the readout sees of each row: crosses and the deep tower, (B, W + H)."""
        (x0_BW,) = self.embedding([features])
        x_BW = x0_BW
        for layer in self.cross:
            x_BW = x0_BW * layer(x_BW) + x_BW
        deep_BH = torch.relu(self.deep_norm(self.deep(x0_BW)))
        return torch.cat([x_BW, deep_BH], dim=1)


def embedded_axes(config: DCNConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded row, for `bundle.transfer`."""
    cross: dict[str, tuple[tuple[int, int], ...]] = {}
    for layer in range(config.cross_layers):
        cross |= {f"cross.{layer}.weight": ((0, 0), (1, 0)), f"cross.{layer}.bias": ((0, 0),)}
    return {**cross, "deep.0.weight": ((1, 0),), "out.weight": ((1, 0),)}
