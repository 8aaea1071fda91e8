"""MMoE: several outcomes of a row by experts that all share, mixed for each outcome by a gate.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
KDD 2018, https://doi.org/10.1145/3219819.3220007, section 4.2: outcome t has a gate over the
embedded row x and a tower over its mixture of the experts,

    g_t(x) = softmax(W_t x)    f_t(x) = sum over experts e of g_t(x)_e f_e(x)
    logit_t = tower_t(f_t(x))

Shape letters: B rows, W width of the embedded row, X experts, H width of an expert, T outcomes.
"""

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock
from recsys.layers.mlp import mlp
from recsys.layers.towers import Towers
from recsys.models.mmoe_config import MMoEConfig


class MMoE(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(
        self, config: MMoEConfig, embedding: nn.Module, width: int, outcomes: int = 1
    ) -> None:
        """Build on `embedding`, which turns one block into one (B, width) tensor."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        # Without the last, linear layer: mixtures and towers take its place.
        self.experts = nn.ModuleList(
            mlp(width, config.hidden, 1, dropout=config.dropout, norm=config.norm)[:-1]
            for _ in range(config.experts)
        )
        self.gates = nn.Linear(width, outcomes * config.experts, bias=False)
        self.towers = Towers(
            outcomes, config.hidden[-1], config.towers, dropout=config.dropout, norm=config.norm
        )

    @property
    def output_bias(self) -> Tensor:
        """What is added to the logits of each outcome, (T,)."""
        return self.towers.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits of each outcome being 1, (B, T), or (B,) of one."""
        mixtures = self.represent(features).chunk(len(self.output_bias), dim=1)
        logits: Tensor = self.towers(mixtures)
        return logits

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the towers see of each row, the mixture of each outcome, (B, T * H)."""
        (x_BW,) = self.embedding([features])
        found_BXH = torch.stack([expert(x_BW) for expert in self.experts], dim=1)
        gates_BTX = self.gates(x_BW).unflatten(1, (-1, self.config.experts)).softmax(dim=2)
        return (gates_BTX.to(found_BXH.dtype) @ found_BXH).flatten(1)


def embedded_axes(config: MMoEConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded row, for `bundle.transfer`."""
    experts = {f"experts.{number}.0.weight": ((1, 0),) for number in range(config.experts)}
    return {**experts, "gates.weight": ((1, 0),)}
