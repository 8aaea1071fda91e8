"""What a pipeline knows of items besides what its sources say, as arrays.

Letters: n_items the catalogue, C candidates, B requests, A attributes, D numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.batch import Jagged
from recsys.features.dataset.sessions import pieces

Matrix = sparse.csr_array[Any]
Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_CELLS = 1 << 22
"""Numbers of shares, a request and a value, that are held at once."""


@dataclass(frozen=True)
class Attribute:
    """Which item has which value, (n_items, V) CSR of ones."""

    values: Matrix

    def shares(self, items: Jagged, history: Jagged) -> Floats:
        """Return the share of the history's items that have a value of each candidate's, (C,).

        An item counts once for each value that both have.

        Args:
            items: B rows of candidates, C in all.
            history: B rows of item rows.
        """
        at_once = max(_CELLS // max(self.values.shape[1], 1), 1)
        parts = [
            self._shares(items.take(rows), history.take(rows))
            for rows in torch.arange(len(items)).split(at_once)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _shares(self, items: Jagged, history: Jagged) -> Floats:
        length = history.lengths().numpy()
        event, cell = self._cells(history)
        weights = np.repeat(1 / np.maximum(length, 1), length)[event]
        liked = np.bincount(cell, weights, minlength=len(length) * self.values.shape[1])
        candidate, cell = self._cells(items)
        found = np.bincount(candidate, liked[cell], minlength=len(items.values))
        return found.astype(np.float64, copy=False)

    def _cells(self, items: Jagged) -> tuple[_Ints, _Ints]:
        """Return each value of each item of B rows: which item, and which cell of (B, V)."""
        rows, starts = items.values.numpy(), self.values.indptr
        count = (starts[rows + 1] - starts[rows]).astype(np.int64)
        value = self.values.indices[pieces(starts[rows].astype(np.int64), count)]
        owner = np.repeat(items.owners().numpy(), count)
        cell = (owner * self.values.shape[1] + value).astype(np.int64)
        return np.repeat(np.arange(len(rows)), count), cell


@dataclass(frozen=True)
class ItemFacts:
    """What is known of the items.

    counts: (n_items,) int64 training rows. numbers: (n_items, D) float32, 0 where one is not known.
    attributes: A of them.
    """

    counts: NDArray[np.int64]
    numbers: NDArray[np.float32]
    attributes: tuple[Attribute, ...]

    def of(self, items: Jagged, history: Jagged) -> NDArray[np.float64]:
        """Return what is known of candidates for their requests, (C, A + D + 1).

        That is for each attribute the share of the history's items that have a value of the
        candidate's, the numbers of the item, and the logarithm of the history's length.

        Args:
            items: B rows of candidates, C in all.
            history: B rows of item rows.
        """
        length = history.lengths().numpy()
        shares = [attribute.shares(items, history) for attribute in self.attributes]
        numbers = self.numbers[items.values.numpy()].astype(np.float64)
        return np.column_stack([*shares, numbers, np.log1p(length)[items.owners().numpy()]])
