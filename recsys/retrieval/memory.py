"""A memory of pairs beside a model that retrieves: what followed the last items before.

A model that learns vectors of a hundred numbers cannot keep which item followed which; counts can.
Shares of what followed each item are added to the scores of a trained model:

    score(j) = score of the model + gain * log(1 + scale * m_j)
    m_j = sum over k = 1..steps of decay^(k - 1) P_(h_k) j

with h_1, h_2, ... the history from its newest step and P the shares of `recsys.retrieval.follow`,
`shrinkage` added to the sum of each row, rows cut to their largest cells. An item without a
training row followed nothing yet: it takes the mean share of the items that are nearest to it
(`recsys.retrieval.newcomers`). The search is that of `recsys.retrieval.gains`: exact with any index
that is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from safetensors.numpy import load, save
from scipy import sparse
from torch import Tensor

from recsys.core.strict import StrictModel, named
from recsys.data.batch import Jagged
from recsys.retrieval.follow import (
    Integers,
    Matrix,
    follow_counts,
    row_sums,
    scaled_rows,
    weighted_steps,
)
from recsys.retrieval.newcomers import lent_shares

WEIGHT = 0.25
"""Where the validation rows are too few to choose by: so little has done no harm anywhere."""
_NUMBERS = ("gain", "steps", "decay", "scale")


class MemoryConfig(StrictModel):
    """What is remembered of pairs of items, and how much it counts."""

    kind: Literal["pairs", "none"] = "pairs"
    """`pairs`: add to an item's score by how often it followed the last items; `none`: do not."""
    weight: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """What is added is so many times the logarithm, in logits. `auto`: the best of a few on the
    validation queries by `training.metric`; 0.25 where they are fewer than 200."""
    steps: Annotated[int, Field(ge=1)] = 10
    """How far apart a pair may be, and how many of the last items are looked up."""
    lag_decay: Annotated[float, Field(gt=0, le=1)] = 0.6
    """What a pair loses of its weight for each step between its items."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.65
    """What an item of the history loses of its weight for each step since."""
    shrinkage: Annotated[float, Field(ge=0)] = 20.0
    """Added to what followed an item in all, in pairs: items with few pairs say less."""
    cells: Annotated[int, Field(ge=1)] = 100
    """Pairs kept of each item, the most frequent ones."""
    scale: Annotated[float, Field(gt=0)] = 300.0
    """What shares are multiplied by before the logarithm."""
    new_items: Annotated[float, Field(ge=0)] = 1.0
    """An item without a training row takes so many times the mean share of the 10 items whose
    vectors are nearest to its own; 0: it has no share, and sinks below those that have."""


Memory = Annotated[MemoryConfig, BeforeValidator(named)]
"""As a configuration has it: the name of a kind, or all settings."""


def memory_of_earlier(raw: Mapping[str, Any]) -> Any:
    """Return what settings of a model say of its memory, which may lack what was added since."""
    memory = raw.get("memory", "none")
    return {"new_items": 0.0, **memory} if isinstance(memory, Mapping) else memory


@dataclass(frozen=True)
class PairMemory:
    """Shares of what followed each item, and how much they gain.

    shares: (n_items, n_items) float32 CSR. gain: what the logarithm is multiplied by, in the scores
    of the model. steps, decay, scale: as in `MemoryConfig`.
    """

    shares: Matrix
    gain: float
    steps: int
    decay: float
    scale: float

    @classmethod
    def of(
        cls,
        sequence: Integers,
        item_row: Integers,
        num_items: int,
        config: MemoryConfig,
        *,
        gain: float,
        vectors: Tensor | None = None,
        weight: NDArray[np.float32] | None = None,
    ) -> Self:
        """Count what followed what.

        Args:
            sequence: (E,) the sequence of each training row, ascending.
            item_row: (E,) the items, in order within a sequence.
            num_items: size of the catalogue.
            config: what is kept.
            gain: what the logarithm is multiplied by.
            vectors: (n_items, E), by which items without a row take the shares of others; None:
                they have none.
            weight: (E,) what a pair counts by its later row; None: 1 each.
        """
        counts = follow_counts(
            sequence,
            item_row,
            num_items,
            steps=config.steps,
            lag_decay=config.lag_decay,
            weight=weight,
        )
        totals = row_sums(counts) + np.float32(config.shrinkage)
        shares = scaled_rows(counts, 1 / np.maximum(totals, np.float32(1e-12)))
        shares = _largest(shares, config.cells)
        memory = cls(shares, gain, config.steps, config.decay, config.scale)
        if vectors is None:
            return memory
        known = np.bincount(item_row, minlength=num_items) > 0
        return memory.lending(known, vectors, config)

    def lending(self, known: NDArray[np.bool_], vectors: Tensor, config: MemoryConfig) -> Self:
        """Return it with shares of new items, by what they are like; see `config.new_items`.

        Args:
            known: (n_items,) which items are not new.
            vectors: (n_items, E).
            config: how much, and how many of them for each item.
        """
        if not config.new_items:
            return self
        lent = _largest(lent_shares(self.shares, known, vectors), config.cells)
        return replace(self, shares=(self.shares + lent * np.float32(config.new_items)).tocsr())

    def __len__(self) -> int:
        """Return the size of the catalogue."""
        return int(self.shares.shape[0])

    def gains(self, history: Jagged) -> Jagged:
        """Return what items gain after each of Q histories, oldest step first.

        Distinct item rows, ascending, with what each gains as weights.
        """
        steps = weighted_steps(
            history.values.numpy(),
            history.offsets.numpy(),
            len(self),
            most=self.steps,
            decay=self.decay,
        )
        found = (steps @ self.shares).tocsr()
        found.sort_indices()
        gain = np.log1p(np.float32(self.scale) * found.data) * np.float32(self.gain)
        return Jagged(
            torch.from_numpy(found.indices.astype(np.int64)),
            torch.from_numpy(found.indptr.astype(np.int64)),
            torch.from_numpy(gain.astype(np.float32)),
        )

    def onto(self, rows: NDArray[np.int64], num_items: int) -> Self:
        """Return the memory of another catalogue.

        Args:
            rows: (n_items,) where each item is in it; -1: it is not.
            num_items: its size.
        """
        cells = self.shares.tocoo()
        pairs = rows[cells.row], rows[cells.col]
        there = (pairs[0] >= 0) & (pairs[1] >= 0)
        kept = tuple(one[there].astype(np.int32) for one in pairs)
        shape = (num_items, num_items)
        return replace(
            self, shares=sparse.coo_array((cells.data[there], kept), shape=shape).tocsr()
        )

    def to_bytes(self) -> bytes:
        """Return it as safetensors bytes, for `from_bytes`."""
        cells = {
            "offsets": self.shares.indptr.astype(np.int64),
            "items": self.shares.indices.astype(np.int64),
            "shares": self.shares.data,
        }
        numbers = {name: np.array([getattr(self, name)], np.float64) for name in _NUMBERS}
        return save({**cells, **numbers})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what `to_bytes` wrote."""
        found = load(data)
        size = len(found["offsets"]) - 1
        cells = (found["shares"], found["items"].astype(np.int32), found["offsets"])
        gain, steps, decay, scale = (float(found[name][0]) for name in _NUMBERS)
        shares = sparse.csr_array(cells, shape=(size, size))
        return cls(shares, gain, int(steps), decay, scale)


def _largest(shares: Matrix, cells: int) -> Matrix:
    """Return the matrix with the largest `cells` of each row, ties by the smaller item."""
    lengths = np.diff(shares.indptr)
    if not (lengths > cells).any():
        return shares
    row = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((shares.indices, -shares.data, row))
    place = np.arange(len(row)) - np.repeat(shares.indptr[:-1], lengths)
    kept = np.sort(order[place < cells])
    pairs = (row[kept].astype(np.int32), shares.indices[kept])
    return sparse.coo_array((shares.data[kept], pairs), shape=shares.shape).tocsr()
