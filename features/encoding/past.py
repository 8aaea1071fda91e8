"""The rows before a row: those of its user or its item that are strictly earlier.

Events are sorted by user and time. A `Past` sorts those that count by (owner, instant), an owner
being a user or an item and an instant the rank of a time among all times, so one binary search
finds what an owner had before any instant.
"""

from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct_codes
from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged

with on_first_use():
    import torch

Integers = NDArray[np.int64]
CountedRows = Literal["positives", "all"]


class LoggedEvents(Protocol):
    """E rows of a log; see `recsys.features.tables.checked.Events`."""

    @property
    def user_row(self) -> NDArray[np.int32]:
        """(E,) row of the user."""

    @property
    def item_row(self) -> NDArray[np.int32]:
        """(E,) row of the item."""

    @property
    def time(self) -> Integers:
        """(E,) microseconds."""

    @property
    def label(self) -> NDArray[np.float32] | None:
        """(E,) 0 or 1, where declared."""

    def __len__(self) -> int: ...


class Past:
    """The rows that count, by owner and instant.

    rows (C,) int64, their event numbers in that order.
    """

    def __init__(
        self,
        owner: NDArray[np.int32],
        instant: Integers,
        item_row: NDArray[np.int32],
        counted: Integers,
    ) -> None:
        """Sort the events `counted` (C,) by their owner, their instant, and then in their order.

        Args:
            owner: (E,) of every event.
            instant: (E,) rank of its time.
            item_row: (E,) its item.
            counted: the numbers of those that count.
        """
        self._span = int(instant.max()) + 1
        keys = owner[counted] * np.int64(self._span) + instant[counted]
        order = np.argsort(keys, kind="stable")
        self._keys, self.rows = keys[order], counted[order]
        owners = np.arange(int(owner.max()) + 2) * np.int64(self._span)
        self._first = np.searchsorted(self._keys, owners)
        self._item_row = np.append(item_row[self.rows], np.int32(-1))

    def before(self, owner: NDArray[np.integer], instant: Integers) -> tuple[Integers, Integers]:
        """Return where in `rows` those of each owner (N,) begin, and where `instant` (N,) does."""
        keys = owner * np.int64(self._span) + instant
        starts = self._first[np.minimum(owner, len(self._first) - 1)]  # items without interactions
        return starts, np.searchsorted(self._keys, keys)

    def items(self, starts: Integers, ends: Integers) -> Jagged:
        """Return the item rows of rows[starts[n]:ends[n]]; -1 alone where that is empty."""
        empty = starts == ends
        starts, lengths = np.where(empty, len(self.rows), starts), np.maximum(ends - starts, 1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Jagged(
            torch.from_numpy(self._item_row[where].astype(np.int64)), torch.from_numpy(offsets)
        )


class Pasts:
    """The pasts of one log, each sorted when it is first asked for."""

    def __init__(self, events: LoggedEvents) -> None:
        self._events = events
        self.owners = {"user": events.user_row, "item": events.item_row}
        self.time = events.time
        self._found: dict[tuple[str, str], Past] = {}

    @cached_property
    def instant(self) -> Integers:
        """The rank of each event's time, (E,)."""
        return distinct_codes(self.time)[1]

    def of(self, owner: str, rows: str) -> Past:
        """Return the past of users or items; a log without labels has positive rows alone."""
        if (owner, rows) not in self._found:
            label = self._events.label
            counts = np.ones(len(self._events), bool)
            if rows == "positives" and label is not None:
                counts = label > 0
            self._found[owner, rows] = Past(
                self.owners[owner], self.instant, self._events.item_row, np.flatnonzero(counts)
            )
        return self._found[owner, rows]
