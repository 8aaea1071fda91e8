"""AutoInt: self-attention among feature fields, read out as one logit a row.

Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks",
CIKM 2019, https://arxiv.org/abs/1810.11921. Section 4.2 makes fields of features
(`recsys.embeddings.fields`), section 4.3 is the interacting layer, equations 5 to 8, section 4.4
the readout over all fields, equation 9. With `hidden` it is AutoInt+ of section 5.5: a
multi-layer perceptron over the same fields, its logit added.

Every option is at the paper's value by default but `head_dim`, 16 here as the fields are wide; the
paper has 32.

Shape letters: B rows, N fields, E width into a layer, H heads, A width of a head, D = H * A width
out of a layer.
"""

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.fields import Fields
from recsys.layers.field_attention import can_fuse, fused_layer
from recsys.layers.mlp import mlp
from recsys.layers.norm import FieldNorm, norm_of
from recsys.models.autoint_config import AutoIntConfig


class InteractingLayer(nn.Module):
    """Each field attends to every field, itself included (equations 5 to 8).

    On a CPU all of it is one pass over the rows (`recsys.layers.field_attention`) where there is
    a C++ compiler and no attention weight is dropped; else operators of torch, equal in numbers.
    """

    def __init__(
        self, in_dim: int, heads: int, head_dim: int, *, scaled: bool, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.scale = head_dim**-0.5 if scaled else 1.0
        # Query, key, value and residual in one product, in this order.
        self.projections = nn.Linear(in_dim, 4 * heads * head_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BNE: Tensor) -> Tensor:
        """Return the mixed fields, (B, N, D)."""
        drops = self.training and self.dropout.p > 0
        if not drops and can_fuse(x_BNE, self.head_dim):
            return fused_layer(x_BNE, self.projections.weight, self.heads, self.scale)
        query, key, value, residual_BND = self.projections(x_BNE).chunk(4, dim=2)
        weight_BHNN = self.dropout(self._weights(query, key))
        mixed_BHNA = weight_BHNN @ self._split(value)
        return torch.relu(mixed_BHNA.transpose(1, 2).flatten(2) + residual_BND)

    def attention(self, x_BNE: Tensor) -> Tensor:
        """Return how much each field attends to each, (B, H, N, N); rows sum to 1 (equation 5)."""
        query, key, _, _ = self.projections(x_BNE).chunk(4, dim=2)
        return self._weights(query, key)

    def _weights(self, query_BND: Tensor, key_BND: Tensor) -> Tensor:
        inner_BHNN = self._split(query_BND) @ self._split(key_BND).transpose(2, 3)
        return torch.softmax(inner_BHNN * self.scale, dim=3)

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(2, (self.heads, -1)).transpose(1, 2)


class AutoInt(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(
        self, config: AutoIntConfig, embedding: nn.Module, layout: FeatureLayout, dim: int
    ) -> None:
        """Build on `embedding`, which turns one block into one row (B, W) as `layout` says.

        Args:
            config: sizes.
            embedding: called with [block].
            layout: of the block.
            dim: width of a row of the table.

        Raises:
            ConfigError: `combine: sum` does not go with the multiplicities.
        """
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.fields = Fields(layout, dim=dim, width=config.field_dim, combine=config.combine)
        self.field_dropout = nn.Dropout(config.field_dropout)
        num_fields, out_dim = len(self.fields.names), config.heads * config.head_dim
        widths = [config.field_dim] + [out_dim] * (config.layers - 1)
        self.norms = nn.ModuleList(
            FieldNorm(config.field_norm, num_fields, width) for width in widths
        )
        self.layers = nn.ModuleList(
            InteractingLayer(
                width,
                config.heads,
                config.head_dim,
                scaled=config.scaled,
                dropout=config.attention_dropout,
            )
            for width in widths
        )
        self.readout_norm = nn.Sequential(*norm_of(config.norm, num_fields * out_dim))
        self.readout = nn.Linear(num_fields * out_dim, 1)
        if config.hidden:
            in_dim = num_fields * config.field_dim
            self.deep = mlp(in_dim, config.hidden, 1, dropout=config.dropout, norm=config.norm)
        if config.first_order:
            width = layout.num_lookups * dim + len(layout.dense)
            self.first_order = nn.Linear(width, 1, bias=False)

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        return self.readout.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        (embedded_BW,) = self.embedding([features])
        fields_BNE = self.field_dropout(self.fields(embedded_BW))
        logits = self.readout(self._read(fields_BNE))
        if self.config.hidden:
            logits = logits + self.deep(fields_BNE.flatten(1))
        if self.config.first_order:
            logits = logits + self.first_order(embedded_BW)
        return logits.squeeze(1).float()

    def represent(self, features: FeatureBlock) -> Tensor:
        """Return what the readout sees of each row, (B, N * D)."""
        (embedded_BW,) = self.embedding([features])
        return self._read(self.field_dropout(self.fields(embedded_BW)))

    def attention(self, features: FeatureBlock) -> Tensor:
        """Return the attention maps of all layers, (L, B, H, N, N); fields as `fields.names`."""
        (embedded_BW,) = self.embedding([features])
        x_BNE, maps = self.fields(embedded_BW), []
        for number, layer in enumerate(self.layers):
            normed_BNE = self._normed(number, x_BNE)
            assert isinstance(layer, InteractingLayer)
            maps.append(layer.attention(normed_BNE))
            x_BNE = layer(normed_BNE)
        return torch.stack(maps)

    def _read(self, fields_BNE: Tensor) -> Tensor:
        read: Tensor = self.readout_norm(self._interacted(fields_BNE).flatten(1))
        return read

    def _interacted(self, x_BNE: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x_BNE = layer(self._normed(number, x_BNE))
        return x_BNE

    def _normed(self, number: int, x_BNE: Tensor) -> Tensor:
        normed: Tensor = self.norms[number](x_BNE)
        return normed
