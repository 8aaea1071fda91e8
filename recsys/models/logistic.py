"""Logistic regression: a weight a value, a weight a number, nothing in between.

The weight of a value is the mean of the numbers that it reads from the table, summed over its
lookups, so that the model is linear in what it learns and needs no table of its own; the mean, so
that one step of the table moves a weight by its learning rate, whatever its width. A multi-valued
feature counts with the mean of its values' weights, or as its pooling says.

Shape letters: B rows, W width of the embedded row.
"""

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.models.logistic_config import LogisticConfig


class Logistic(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(
        self, config: LogisticConfig, embedding: nn.Module, layout: FeatureLayout, dim: int
    ) -> None:
        """Build on `embedding`, which turns one block into one row (B, W) as `layout` says."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.dim, self.num_sparse = dim, layout.num_lookups * dim
        self.dense = nn.Linear(len(layout.dense), 1, bias=False) if layout.dense else None
        self.bias = nn.Parameter(torch.zeros(1))

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        return self.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        (embedded_BW,) = self.embedding([features])
        logits = embedded_BW[:, : self.num_sparse].sum(1) / self.dim + self.bias
        if self.dense is not None:
            logits = logits + self.dense(embedded_BW[:, self.num_sparse :]).squeeze(1)
        return logits.float()
