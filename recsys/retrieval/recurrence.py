"""How often a history comes back to an item that it holds, and how often it would by chance.

A step recurs if the same item is among the `window` steps before it in its sequence. What chance
would give is measured: the same items are dealt out anew to the same steps, drawn once by a fixed
seed, and counted in the same way.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys.retrieval.follow import Integers


@dataclass(frozen=True)
class Recurrence:
    """How often items come back.

    steps: those with an earlier one in their sequence. share: of them, that recur. by_chance: that
    would. Both are 0 where there are no steps.
    """

    steps: int
    share: float
    by_chance: float

    @classmethod
    def of(cls, sequence: Integers, item_row: Integers, window: int) -> Self:
        """Count.

        Args:
            sequence: (E,) the sequence of each training row, ascending.
            item_row: (E,) the items, in order within a sequence.
            window: how many steps before a step count.
        """
        steps = int((np.diff(sequence) == 0).sum())
        if not steps:
            return cls(0, 0.0, 0.0)
        dealt = np.random.default_rng(0).permutation(item_row)
        found, expected = (_recurring(sequence, one, window) for one in (item_row, dealt))
        return cls(steps, found / steps, expected / steps)

    def in_words(self) -> str:
        """Return it as a sentence without its end."""
        return (
            f"{self.share:.2%} of {self.steps:,} steps are an item of the same history again, by "
            f"chance {self.by_chance:.2%} would be"
        )


def _recurring(sequence: Integers, item_row: Integers, window: int) -> int:
    """Return the number of steps whose item is among the `window` steps before."""
    key = sequence.astype(np.int64) * (int(item_row.max()) + 1) + item_row
    place = np.argsort(key, kind="stable")
    same = key[place[1:]] == key[place[:-1]]
    return int((same & (np.diff(place) <= window)).sum())
