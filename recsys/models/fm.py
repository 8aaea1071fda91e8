"""Factorization machine: a linear term and the inner products of all pairs of fields.

Rendle, "Factorization Machines", ICDM 2010, equation 1, with the pairwise term in linear time
(lemma 3.1): sum over i < j of <f_i, f_j> = (|sum f|^2 - sum |f|^2) / 2. The weight of a value in
the linear term is a learnt combination of the numbers that it reads from the table.

Shape letters: B rows, W width of the embedded row, N fields, E width of a field.
"""

from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.fields import Fields
from recsys.models.fm_config import FMConfig


class FM(nn.Module):
    """Logits of rows; independent of losses, optimizers and data."""

    def __init__(
        self, config: FMConfig, embedding: nn.Module, layout: FeatureLayout, dim: int
    ) -> None:
        """Build on `embedding`, which turns one block into one row (B, W) as `layout` says."""
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.fields = Fields(layout, dim=dim, width=dim, combine=config.combine)
        self.linear = nn.Linear(layout.num_lookups * dim + len(layout.dense), 1)

    @property
    def output_bias(self) -> Tensor:
        """What is added to every logit, (1,)."""
        return self.linear.bias

    def forward(self, features: FeatureBlock) -> Tensor:
        """Return logits (B,) of the label being 1."""
        (embedded_BW,) = self.embedding([features])
        fields_BNE = self.fields(embedded_BW).float()
        pairs_BE = fields_BNE.sum(1).square() - fields_BNE.square().sum(1)
        return self.linear(embedded_BW).squeeze(1).float() + pairs_BE.sum(1) / 2
