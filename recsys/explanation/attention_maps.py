"""Which field looks at which: attention of AutoInt as maps of fields by fields.

Song et al., CIKM 2019, https://arxiv.org/abs/1810.11921, section 5.4: of one row, and the mean
over rows. A map says where values come from, not how they are used: the values that are
mixed, the residual next to them and the readout may give a field that is looked at no weight, and
one that is not looked at much. `recsys.explanation.explanations` asks the model itself; how far
both agree is for the reader to see (`recsys.explanation.explanations.agreement`).

Shape letters: B rows, L layers, H heads, N fields: a row looks, a column is looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import FeatureBlock
from recsys.embeddings.fields import Fields

_CHUNK_ROWS = 4096


@runtime_checkable
class FieldAttention(Protocol):
    """A model whose fields attend to each other."""

    fields: Fields

    def attention(self, features: FeatureBlock) -> Tensor:
        """Return the attention maps of all layers, (L, B, H, N, N); fields as `fields.names`."""


@dataclass(frozen=True)
class AttentionMaps:
    """Attention of a model over its N fields, a mean over rows.

    names: N fields. heads (L, H, N, N): the map of each head. rollout (N, N): from the last
    layer's fields back to the first layer's. The rows of every map sum to 1.
    """

    names: tuple[str, ...]
    heads: NDArray[np.float64]
    rollout: NDArray[np.float64]

    @property
    def average(self) -> NDArray[np.float64]:
        """The mean over layers and heads, (N, N)."""
        return self.heads.mean((0, 1))

    @property
    def received(self) -> NDArray[np.float64]:
        """Each field's share of all attention, (N,): they sum to 1, and 1 / N is no preference."""
        return self.average.mean(0)

    def between(self, first: str, second: str) -> float:
        """Return how much two fields look at each other, the mean of both directions."""
        i, j = self.names.index(first), self.names.index(second)
        return float(self.average[i, j] + self.average[j, i]) / 2


@torch.no_grad()
def attention_maps(
    attention: Callable[[FeatureBlock], Tensor], names: tuple[str, ...], features: FeatureBlock
) -> AttentionMaps:
    """Return the mean attention over the rows of `features`; of one row, that row's own.

    The rollout is that of Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL
    2020, https://arxiv.org/abs/2005.00928, section 3: the product over layers of (A + I) / 2, A
    the mean over heads, row by row of the data. The identity represents the residual, which it
    takes to weigh as much as attention does; AutoInt's residual is a learnt matrix, and how much
    it weighs is not known. A field therefore keeps at least 2^-L of itself whatever was learnt.

    Args:
        attention: block -> (L, B, H, N, N), as `AutoInt.attention`.
        names: of the N fields, as `AutoInt.fields.names`.
        features: at least one row.
    """
    count = len(features)
    heads, rollouts = [], []
    for rows in torch.arange(count, device=features.single.device).split(_CHUNK_ROWS):
        maps_LBHNN = attention(features.take(rows)).double()
        heads.append(maps_LBHNN.sum(1))
        rollouts.append(_rollout(maps_LBHNN.mean(2)).sum(0))
    return AttentionMaps(names, _mean(heads, count), _mean(rollouts, count))


def _rollout(maps_LBNN: Tensor) -> Tensor:
    """Return (B, N, N)."""
    identity = torch.eye(maps_LBNN.shape[-1], dtype=maps_LBNN.dtype, device=maps_LBNN.device)
    rolled_BNN = identity.expand_as(maps_LBNN[0])
    for map_BNN in maps_LBNN:
        rolled_BNN = (map_BNN + identity) / 2 @ rolled_BNN
    return rolled_BNN


def _mean(sums: list[Tensor], count: int) -> NDArray[np.float64]:
    return (torch.stack(sums).sum(0) / count).cpu().numpy()
