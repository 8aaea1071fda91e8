"""What a training example of retrieval is: a row of the log, or a user with many rows.

Shape letters in words: B queries, P pairs of a query and an item it took.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from features.dataset import Dataset
from features.split import TRAIN
from recsys.batch import Jagged

Kind = Literal["rows", "users"]


@dataclass(frozen=True)
class Drawn:
    """The queries of a batch, what each had taken before, and what it is to find.

    users (B,) user rows. context (B,) event numbers, whose context the query carries. history: B
    rows of item rows, oldest first. asks (P,) the query of each pair, ascending; events (P,)
    event numbers of the pairs.
    """

    users: NDArray[np.int64]
    context: NDArray[np.int64]
    history: Jagged
    asks: NDArray[np.int64]
    events: NDArray[np.int64]


class Examples(Protocol):
    """Numbered examples, drawn some at a time."""

    def __len__(self) -> int:
        """Number of examples: an epoch sees each once."""

    def draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        """Return the examples `chosen` (B,)."""


class Rows:
    """Each training row is a query of its own, with all that its user took before."""

    def __init__(self, data: Dataset, history_length: int) -> None:
        self.events = data.events_of((TRAIN,))
        self.user_row = data.tables.events.user_row
        self.histories = data.histories((TRAIN,))
        self.ends = self.histories.before_each()
        self.history_length = history_length

    def __len__(self) -> int:
        return len(self.events)

    def draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        """Return the rows `chosen`; nothing is random about them."""
        numbers = self.events[chosen]
        users = self.user_row[numbers].astype(np.int64)
        ends = self.ends[chosen]
        starts = np.maximum(self.histories.offsets[users], ends - self.history_length)
        history = self.histories.windows(starts, ends)
        return Drawn(users, numbers, history, np.arange(len(numbers)), numbers)


class Users:
    """Each user with a training row is a query; several rows after a drawn cut are its pairs.

    Where the query reads a history, the user's rows are cut at a random place (before the first
    row at the earliest, before the last at the latest): what lies before is the history, the next
    `positives` rows after it are the pairs. Without a time or an order, the rows are shuffled
    first. Where it reads none, the pairs are `positives` rows of all. An item taken several times
    is one pair.
    """

    def __init__(
        self, data: Dataset, history_length: int, positives: int, *, ordered: bool
    ) -> None:
        self.events = data.events_of((TRAIN,))
        self.item_row = data.tables.events.item_row
        self.histories = data.histories((TRAIN,))
        self.ends = self.histories.before_each()
        self.users = np.flatnonzero(self.histories.lengths() > 0)
        self.history_length, self.positives, self.ordered = history_length, positives, ordered

    def __len__(self) -> int:
        return len(self.users)

    def draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        """Return the users `chosen`, cut anew at each call."""
        users = self.users[chosen]
        first = self.histories.offsets[users]
        lengths = self.histories.offsets[users + 1] - first
        owner = np.repeat(np.arange(len(users)), lengths)
        start = np.cumsum(lengths) - lengths
        place = np.arange(len(owner)) - start[owner]
        if not (self.ordered and self.history_length):
            key = rng.random(len(owner))
            place = place[np.lexsort((key, owner))]
        rows = first[owner] + place
        cut = np.zeros(len(users), np.int64)
        if self.history_length:
            cut = (rng.random(len(users)) * lengths).astype(np.int64)
        if self.ordered:  # rows of one instant are no history of each other
            cut = self.ends[first + cut] - first
        rank = np.arange(len(owner)) - start[owner]
        cut_of = cut[owner]
        after = (rank >= cut_of) & (rank < cut_of + self.positives)
        before = (rank < cut_of) & (rank >= cut_of - self.history_length)
        history_lengths = np.bincount(owner[before], minlength=len(users))
        history = Jagged.of_lengths(self.histories.item_row[rows[before]], history_lengths)
        asks, events = owner[after], self.events[rows[after]]
        context = events[np.searchsorted(asks, np.arange(len(users)))]
        pairs = asks * (int(self.item_row.max(initial=0)) + 1) + self.item_row[events]
        _, once = np.unique(pairs, return_index=True)
        once.sort()
        return Drawn(users, context, history, asks[once], events[once])
