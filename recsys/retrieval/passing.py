"""Which items each query may be answered with: sets of items that queries share, and lists of own.

A set is kept as bits, an eighth of a byte an item, whatever number of queries has it. What a query
leaves out besides, and what it is limited to, are rows of its own.

Shape letters: Q queries, S distinct sets, N items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recsys.core.distinct import is_among
from recsys.data.batch import Jagged
from recsys.retrieval.repeats import distinct
from recsys.sampling.candidates import row_by_row

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Passing:
    """Items that may be recommended to each of Q queries.

    num_items: N. sets (S, ceil(N / 8)): bits of each set. set_of (Q,) int64: the set of each query.
    blocked: Q rows of item rows that a query leaves out. allowed: Q rows of item rows; those of a
    query that `is_limited` (Q,) bool are all that it may be answered with, if its set has them.
    seen: Q rows of item rows to leave out besides.
    """

    num_items: int
    sets: Bits
    set_of: Tensor
    blocked: Jagged
    allowed: Jagged
    is_limited: Tensor
    seen: Jagged | None = None

    @classmethod
    def of(cls, masks: NDArray[np.bool_], set_of: NDArray[np.int64]) -> Self:
        """Return what passes by sets alone.

        Args:
            masks: (S, N) which items are in each set.
            set_of: (Q,) the set of each query.
        """
        count = len(set_of)
        nothing = Jagged.of_lengths(np.zeros(0, np.int64), np.zeros(count, np.int64))
        is_limited = torch.zeros(count, dtype=torch.bool)
        bits = np.packbits(masks, axis=1)
        return cls(masks.shape[1], bits, torch.from_numpy(set_of), nothing, nothing, is_limited)

    def __len__(self) -> int:
        return len(self.set_of)

    def take(self, rows: Tensor) -> "Passing":
        """Return the queries `rows` (M,) int64 in that order."""
        return replace(
            self,
            set_of=self.set_of[rows],
            blocked=self.blocked.take(rows),
            allowed=self.allowed.take(rows),
            is_limited=self.is_limited[rows],
            seen=None if self.seen is None else self.seen.take(rows),
        )

    def hiding(self, seen: Jagged | None) -> "Passing":
        """Return the same with Q rows of item rows left out besides."""
        return replace(self, seen=seen)

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Return which items set `number` has, (N,)."""
        return np.unpackbits(self.sets[number], count=self.num_items).view(np.bool_)

    def masks(self) -> NDArray[np.bool_]:
        """Return which items each query may be answered with, seen ones left out, (Q, N)."""
        found = np.unpackbits(self.sets, axis=1, count=self.num_items).view(np.bool_)
        found = found[self.set_of.numpy()]
        limited = np.zeros_like(found)
        limited[self.allowed.owners().numpy(), self.allowed.values.numpy()] = True
        found &= limited | ~self.is_limited.numpy()[:, None]
        hidden = self.hidden()
        found[hidden.owners().numpy(), hidden.values.numpy()] = False
        return found

    def hidden(self) -> Jagged:
        """Return Q rows of item rows that queries leave out, blocked and seen."""
        return self.blocked if self.seen is None else row_by_row(self.blocked, self.seen)

    def limits(self) -> Jagged:
        """Return the distinct items that limited queries may be answered with, ascending, Q rows.

        Those of their sets, blocked and seen ones left out; the rows of other queries are empty.
        """
        lists, size = distinct(self.allowed), max(self.num_items, 1)
        owner, row = lists.owners().numpy(), lists.values.numpy()
        hidden = self.hidden()
        kept = ~is_among(owner * size + row, (hidden.owners() * size + hidden.values).numpy())
        return where(lists, torch.from_numpy(kept & self._holds(owner, row)))

    def groups(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each set that queries without a limit have, and these queries, (M,) ascending."""
        free = torch.nonzero(~self.is_limited).flatten()
        order = self.set_of[free].argsort(stable=True)
        numbers, counts = self.set_of[free].unique(return_counts=True)
        parts = free[order].split(counts.tolist())
        yield from zip(numbers.tolist(), parts, strict=True)

    def counts(self) -> NDArray[np.int64]:
        """Return how many items each query may be answered with, seen ones among them, (Q,)."""
        sizes = np.bitwise_count(self.sets).sum(1, dtype=np.int64)
        blocked = distinct(self.blocked)
        owner = blocked.owners().numpy()
        inside = self._holds(owner, blocked.values.numpy())
        free = sizes[self.set_of.numpy()] - np.bincount(owner[inside], minlength=len(self))
        limited = replace(self, seen=None).limits().lengths().numpy()
        return np.where(self.is_limited.numpy(), limited, free)

    def left(self) -> NDArray[np.int64]:
        """Return how many items each query may be answered with, seen ones left out, (Q,)."""
        return replace(self, blocked=self.hidden(), seen=None).counts()

    def _holds(self, query: NDArray[Any], row: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether the set of each query (T,) has the item (T,)."""
        byte = self.sets[self.set_of.numpy()[query], row >> 3]
        bit: NDArray[np.bool_] = (byte >> (7 - (row & 7)).astype(np.uint8)) & 1 == 1
        return bit


def where(rows: Jagged, keep: Tensor) -> Jagged:
    """Return the rows with those of their values alone that `keep` (T,) bool says."""
    counts = torch.bincount(rows.owners()[keep], minlength=len(rows))
    weights = None if rows.weights is None else rows.weights[keep]
    return Jagged(rows.values[keep], F.pad(counts.cumsum(0), (1, 0)), weights)
