"""What a pipeline knows of items besides what its sources say, as arrays.

Letters: n_items the catalogue, C candidates, B requests, A attributes, D numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.batch import Jagged

Matrix = sparse.csr_array[Any]


@dataclass(frozen=True)
class Attribute:
    """Which item has which value, (n_items, V) CSR of ones."""

    values: Matrix


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
        owner, rows = items.owners().numpy(), items.values.numpy()
        length = history.lengths().numpy()
        weights = np.repeat(1 / np.maximum(length, 1), length)
        shape = (len(length), len(self.counts))
        place = (history.owners().numpy(), history.values.numpy())
        held = sparse.coo_array((weights, place), shape=shape).tocsr()
        shares = []
        for attribute in self.attributes:
            ones = attribute.values
            liked = (held @ ones).tocsr()
            shares.append(np.asarray(ones[rows].multiply(liked[owner]).sum(axis=1)).ravel())
        return np.column_stack(
            [*shares, self.numbers[rows].astype(np.float64), np.log1p(length)[owner]]
        )
