"""Why an item is recommended: the items of the history that speak for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import is_among

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Because:
    """An item of the history, what people call it, and what it adds to the score."""

    item: Any
    title: str
    adds: float


@dataclass(frozen=True, repr=False)
class ListExplanation:
    """Why an item is where it is in the list of a user.

    Attributes:
        kind: of the model.
        user, item: their ids.
        title: what people call the item.
        score: of the item, after the whole history.
        rank: of the item in its user's list, from 1, were the list as long as the catalogue:
            without seen items where the model's lists leave them out, but with this one; 0: none.
        by_popularity: whether the model knows nothing of the history: the list is by popularity.
        because: the items of the history, those that add most first.
    """

    kind: str
    user: str
    item: str
    title: str
    score: float
    rank: int
    by_popularity: bool
    because: tuple[Because, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "kind": self.kind,
            "user": self.user,
            "item": self.item,
            "title": self.title,
            "score": self.score,
            "rank": self.rank,
            "by_popularity": self.by_popularity,
            "because": [vars(one) for one in self.because],
        }

    def to_frame(self) -> "pd.DataFrame":
        """Return a row an item of the history: `item`, `title`, `adds`."""
        import pandas as pd

        return pd.DataFrame([vars(one) for one in self.because], columns=["item", "title", "adds"])

    def lines(self) -> list[str]:
        """Return it as text."""
        named = self.item if self.title == self.item else f"{self.item} ({self.title})"
        found = [f"{named} for {self.user}: rank {self.rank:,}, score {self.score:.4g}"]
        if self.by_popularity:
            return [*found, "the model knows nothing of the history: the list is by popularity"]
        width = max((len(one.title) for one in self.because), default=0)
        return [*found, *(f"  {one.title:<{width}}  {one.adds:+.4g}" for one in self.because)]

    def __repr__(self) -> str:
        """Return the text."""
        return "\n".join(self.lines())


def place_in_list(rows: NDArray[np.int64], item: int, hidden: NDArray[np.int64]) -> int:
    """Return the place of `item`, from 1, among what is not hidden; 0 where it is not there.

    rows: (n,) item rows, best first. hidden: (m,) item rows that lists leave out, `item` aside.
    """
    (at,) = np.nonzero(rows == item)
    return int((~is_among(rows[: at[0]], hidden)).sum()) + 1 if len(at) else 0
