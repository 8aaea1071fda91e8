"""MaskNet: hidden layers whose inputs are multiplied by masks that the row itself gives.

Wang et al., "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
Instance-Guided Mask", DLP-KDD 2021, https://arxiv.org/abs/2102.07619. Section 3.2 has the mask,
equation 6, section 3.3 the block, equations 8 and 10, section 3.4 the serial and the parallel
model:

    mask = W_2 relu(W_1 x + b_1) + b_2        block(input) = relu(norm(W (mask * input)))

with x the embedded row. Every block has a mask of its own. In parallel all blocks read the
normalised row and a perceptron reads what they give; in series each block reads the one before.

The paper has layer normalisation of each embedding, here `field_norm: layer`, and in each block,
`norm: layer`; the default is batch normalisation of both.

Shape letters: B rows, W width of the embedded row, S of its lookups, N lookups, E width of a row
of the table, D width of a block.
"""

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.layers.mlp import mlp
from recsys.layers.norm import FieldNorm, norm_of, takes_bias_off
from recsys.models.masknet_config import MaskNetConfig


class MaskBlock(nn.Module):
    """A hidden layer of its input times a mask of the row."""

    def __init__(self, in_dim: int, width: int, config: MaskNetConfig) -> None:
        """in_dim: width of the input; width: W."""
        super().__init__()
        hidden = max(1, round(width * config.mask_ratio))
        self.mask = mlp(width, (hidden,), in_dim, dropout=0.0)
        self.hidden = nn.Sequential(
            nn.Linear(in_dim, config.block_dim, bias=not takes_bias_off(config.norm)),
            *norm_of(config.norm, config.block_dim),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )

    def forward(self, input_BI: Tensor, x_BW: Tensor) -> Tensor:
        """Return (B, D)."""
        found: Tensor = self.hidden(self.mask(x_BW) * input_BI)
        return found


class MaskNet(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(
        self, config: MaskNetConfig, embedding: nn.Module, layout: FeatureLayout, dim: int
    ) -> None:
        """Build on `embedding`, which turns one block into one row (B, W) as `layout` says."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.lookups = (layout.num_lookups, dim)
        self.num_sparse = layout.num_lookups * dim
        self.field_norm = FieldNorm(config.field_norm, *self.lookups)
        width = self.num_sparse + len(layout.dense)
        self.in_parallel = config.structure == "parallel"
        inputs = [width] * config.blocks
        if not self.in_parallel:
            inputs[1:] = [config.block_dim] * (config.blocks - 1)
        self.blocks = nn.ModuleList(MaskBlock(in_dim, width, config) for in_dim in inputs)
        read = config.block_dim * (config.blocks if self.in_parallel else 1)
        self.deep = mlp(read, config.hidden, 1, dropout=config.dropout, norm=config.norm)

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        last = self.deep[-1]
        assert isinstance(last, nn.Linear)
        return last.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        logits: Tensor = self.deep(self._masked(features)).squeeze(1)
        return logits.float()

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the last layer sees of each row, (B, hidden[-1]), or all blocks'."""
        seen: Tensor = self.deep[:-1](self._masked(features))
        return seen

    def _masked(self, features: FeatureBlock) -> Tensor:
        """Return what the blocks give: of all, or of the last in series."""
        (x_BW,) = self.embedding([features])
        normed_BW = self._normed(x_BW)
        if self.in_parallel:
            return torch.cat([block(normed_BW, x_BW) for block in self.blocks], dim=1)
        for block in self.blocks:
            normed_BW = block(normed_BW, x_BW)
        return normed_BW

    def _normed(self, x_BW: Tensor) -> Tensor:
        """Normalise what was read from the table; dense columns stay."""
        if not self.num_sparse:
            return x_BW
        fields_BNE = self.field_norm(x_BW[:, : self.num_sparse].unflatten(1, self.lookups))
        return torch.cat([fields_BNE.flatten(1), x_BW[:, self.num_sparse :]], dim=1)
