"""What is in the session already, the latest first: hard to beat where people come back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.plain.interactions import Integers, user_items
from recsys.plain.kind import PlainConfig
from recsys.plain.ordered import popularity_share
from recsys.retrieval.follow import last_steps


class SessionItemsConfig(PlainConfig):
    """Settings of a `SessionItems`: there are none."""

    kind: Literal["session_items"] = "session_items"


@dataclass(frozen=True)
class SessionItems:
    """The items of the history, from the newest step back; then all others by popularity.

    popularity (n_items,) float32, at most 1.
    """

    popularity: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        sequence: Integers,
        item_row: Integers,
        num_items: int,
        *,
        weight: NDArray[np.float32] | None = None,
    ) -> "SessionItems":
        """Count the sequences of each item.

        Args:
            sequence: (E,) the sequence of each training row, ascending.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
        """
        return cls(popularity_share(user_items(sequence, item_row, num_items, weight=weight)))

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return 1 + 1 / (1 + age) for items of the history, (B, n_items); the others at most 1."""
        scores = np.tile(self.popularity, (len(history_offsets) - 1, 1))
        longest = int(np.diff(history_offsets).max(initial=0))
        query, items, age = last_steps(history_values, history_offsets, longest)
        # Ages fall along a query, so the newest mention of an item is written last.
        scores[query, items] = 1 + 1 / (1 + age)
        return scores
