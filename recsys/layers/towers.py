"""A small perceptron an outcome: the last layers of models that predict several of a row.

Shape letters: B rows, T outcomes, H width of what a tower reads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.layers.choices import Norm
from recsys.layers.mlp import mlp


class Towers(nn.Module):
    """Logits of `count` outcomes, each by a perceptron of its own; `bias` (T,) is added to them."""

    def __init__(
        self, count: int, in_dim: int, hidden: Sequence[int], *, dropout: float, norm: Norm
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            mlp(in_dim, hidden, 1, dropout=dropout, norm=norm, bias=False) for _ in range(count)
        )
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, seen_TBH: Sequence[Tensor]) -> Tensor:
        """Return logits of what each tower reads, (B, H) each: (B, T), or (B,) of one outcome."""
        pairs = zip(self.parts, seen_TBH, strict=True)
        logits_BT = torch.cat([part(seen_BH) for part, seen_BH in pairs], dim=1) + self.bias
        return (logits_BT if len(self.parts) > 1 else logits_BT.squeeze(1)).float()
