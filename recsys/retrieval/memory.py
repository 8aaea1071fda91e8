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

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from scipy import sparse
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval.follow import (
    Integers,
    Matrix,
    follow_counts,
    row_sums,
    scaled_rows,
    weighted_steps,
)
from recsys.retrieval.memory_config import MemoryConfig
from recsys.retrieval.newcomers import lent_shares

WEIGHT = 0.25
"""Where the validation rows are too few to choose by: so little has done no harm anywhere."""
_NUMBERS = ("gain", "steps", "decay", "scale")


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
