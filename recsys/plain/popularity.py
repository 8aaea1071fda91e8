"""The same list for everybody: items by their number of users, ever or recently."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.plain.interactions import Integers, user_items
from recsys.plain.kind import PlainConfig


class PopularityConfig(PlainConfig):
    """Settings of a `Popularity`."""

    kind: Literal["popularity"] = "popularity"
    window_days: Annotated[float, Field(gt=0)] | None = None
    """How long before the last training row is counted; null: all rows."""


@dataclass(frozen=True)
class Popularity:
    """Items by their number of users.

    num_users (n_items,) float32, distinct users of each item, or what they weigh in all.
    """

    num_users: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        time: Integers | None = None,
        window: int | None = None,
        weight: NDArray[np.float32] | None = None,
    ) -> "Popularity":
        """Count distinct users an item.

        Args:
            user_row: (E,) the users, training rows only.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
            time: (E,) when, needed with `window`.
            window: count only the rows at most this long before the last one, in units of `time`.

        Raises:
            ValueError: a window without times.
        """
        if window is not None:
            if time is None:
                raise ValueError("a popularity window needs the times of the rows")
            recent = time >= time.max() - window
            user_row, item_row = user_row[recent], item_row[recent]
            weight = None if weight is None else weight[recent]
        user_matrix = user_items(user_row, item_row, num_items, weight=weight)
        counts = np.bincount(user_matrix.indices, user_matrix.data, minlength=num_items)
        return cls(counts.astype(np.float32))

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return the counts for each query, (B, n_items)."""
        return np.tile(self.num_users, (len(history_offsets) - 1, 1))
