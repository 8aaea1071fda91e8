"""Values by number, and rows by share: what embeddings with a table for each feature need.

The unified embedding needs neither: a value's row follows from its hash and its feature's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vocabulary:
    """The distinct values of one feature's training rows; `values` (V,) int64, ascending.

    They are numbered 0..V-1; every value outside has the number V.
    """

    values: Tensor

    @classmethod
    def fit(cls, values: Tensor) -> Self:
        """Return the vocabulary of value hashes (T,) int64, repeats allowed."""
        return cls(torch.unique(values))

    def __len__(self) -> int:
        """How many numbers there are, that of unseen values among them: V + 1."""
        return len(self.values) + 1

    def numbers(self, values: Tensor) -> Tensor:
        """Return the number of each value hash (T,) int64, (T,) int64 in 0..V."""
        unseen = len(self.values)
        if not unseen:
            return torch.zeros_like(values)
        found = torch.searchsorted(self.values, values.contiguous())
        known = self.values[found.clamp(max=unseen - 1)] == values
        return torch.where(known, found, unseen)


def share_rows(
    wants: Mapping[str, int], least: Mapping[str, int], total: int
) -> dict[str, tuple[int, int]]:
    """Share `total` rows out as one range a feature: its first row, and how many there are.

    A feature has the `least` rows, and of the rest a share by how many more than that it `wants`.
    The ranges follow each other and fill the total, unless no feature wants more than the least.

    Raises:
        ValueError: `total` is below the sum of the least.
    """
    needed = sum(least.values())
    if needed > total:
        raise ValueError(f"{len(wants)} tables need at least {needed} rows, there are {total}")
    rest = total - needed
    more = {name: max(count - least[name], 0) for name, count in wants.items()}
    whole = max(sum(more.values()), 1)
    ranges, first, given = {}, 0, 0
    for name, want in more.items():
        # Of the running sum, so that the shares add up to the rest.
        extra = rest * (given + want) // whole - rest * given // whole
        ranges[name] = (first, least[name] + extra)
        first, given = first + least[name] + extra, given + want
    return ranges
