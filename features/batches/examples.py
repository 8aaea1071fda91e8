"""What a training example of retrieval is: a row of the log, or a user with many rows.

Shape letters: B queries, P pairs of a query and an item its user interacted with.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct, first_places
from recsys.data.batch import Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN

Kind = Literal["rows", "users"]


@dataclass(frozen=True)
class Drawn:
    """The queries of a batch, the earlier items of each, and what it is to find.

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
    """Each training row is a query of its own, with all earlier items of its user.

    targets: only rows that are asked for are; all rows are history. gap_seconds: how much older
    than the row they have to be.
    """

    def __init__(
        self,
        data: Dataset,
        history_length: int,
        *,
        targets: bool = True,
        gap_seconds: float = 0,
    ) -> None:
        trained = data.events_of((TRAIN,))
        self.events = data.targets_of((TRAIN,)) if targets else trained
        self.user_row = data.tables.events.user_row
        self.histories = data.histories((TRAIN,))
        ends = self.histories.before_each_by(gap_seconds)
        self.ends = ends[np.searchsorted(trained, self.events)]
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
    """Each user with a training row is a query; several of their rows are its pairs.

    Cut: the user's rows are cut at a random place, before the first row at the earliest and before
    the last at the latest. What comes before is the history, the next `positives` rows are the
    pairs; rows of one instant stay together, behind the cut. Without a time or an order, the rows
    are shuffled first. Not cut: the last rows are the history and any `positives` rows the pairs,
    so that a query sees what it is to find among all else, as graph models do.

    Several interactions with one item are one pair. targets: only rows that are asked for are
    pairs, and a place to cut at is before one of them; all rows are history.
    """

    def __init__(
        self,
        data: Dataset,
        history_length: int,
        positives: int,
        *,
        ordered: bool,
        cut: bool = True,
        targets: bool = True,
        gap_seconds: float = 0,
    ) -> None:
        self.events = data.events_of((TRAIN,))
        target = data.tables.events.target
        self.asked = np.ones(len(self.events), bool)
        if targets and target is not None:
            self.asked = target[self.events]
        self.item_row = data.tables.events.item_row
        self.num_items = data.num_items
        self.histories = data.histories((TRAIN,))
        self.ends = self.histories.before_each()
        self.history_ends = self.histories.before_each_by(gap_seconds)
        self.users = distinct(data.tables.events.user_row[self.events[self.asked]]).astype(np.int64)
        self.history_length, self.positives = history_length, positives
        self.ordered, self.cut = ordered, cut

    def __len__(self) -> int:
        return len(self.users)

    def draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        """Return the users `chosen`, cut again at each call."""
        users = self.users[chosen]
        first = self.histories.offsets[users]
        lengths = self.histories.offsets[users + 1] - first
        owner = np.repeat(np.arange(len(users)), lengths)
        rank = np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]
        row = first[owner] + rank
        if not (self.ordered and self.cut):
            row = row[np.lexsort((rng.random(len(row)), owner))]
        asked = self.asked[row]
        earlier = _earlier(asked, np.cumsum(lengths) - lengths, owner)
        if self.cut:
            chosen_target = rng.random(len(users)) * np.bincount(owner[asked], minlength=len(users))
            cut = rank[asked & (earlier == chosen_target.astype(np.int64)[owner])]
            until = cut
            if self.ordered:
                until = self.history_ends[first + cut] - first
                cut = self.ends[first + cut] - first
            before = (rank < until[owner]) & (rank >= until[owner] - self.history_length)
            history = Jagged.of_lengths(
                self.histories.item_row[row[before]],
                np.bincount(owner[before], minlength=len(users)),
            )
        else:
            cut = np.zeros(len(users), np.int64)
            history = self.histories.last(users, self.history_length)
        after = asked & (rank >= cut[owner])
        before_cut = np.bincount(owner[asked & ~after], minlength=len(users))
        after &= earlier < before_cut[owner] + self.positives
        asks, events = owner[after], self.events[row[after]]
        context = events[np.searchsorted(asks, np.arange(len(users)))]
        once = first_places(asks * self.num_items + self.item_row[events])
        once.sort()
        return Drawn(users, context, history, asks[once], events[once])


def _earlier(
    asked: NDArray[np.bool_], starts: NDArray[np.int64], owner: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return how many rows before each one of its user are asked for, (T,).

    Args:
        asked: (T,) whether a row is, user after user.
        starts: (B,) where each user begins.
        owner: (T,) the user of each row.
    """
    count: NDArray[np.int64] = np.cumsum(asked) - asked
    return count - count[starts][owner]
