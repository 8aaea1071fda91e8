"""The earlier interactions of each user: rows of items, in order, cut so that nothing leaks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged

with on_first_use():
    import torch

_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class Histories:
    """The events of each user in order: user u holds rows offsets[u]:offsets[u + 1].

    item_row (T,) int32; time (T,) int64; offsets (num_users + 1,) int64.
    """

    item_row: NDArray[np.int32]
    time: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def build(
        cls,
        user_row: NDArray[np.int32],
        item_row: NDArray[np.int32],
        time: NDArray[np.int64],
        num_users: int,
    ) -> "Histories":
        """Build from events sorted by user, then time."""
        offsets = np.searchsorted(user_row, np.arange(num_users + 1)).astype(np.int64)
        return cls(item_row, time, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Return how many events each user has, (num_users,)."""
        return np.diff(self.offsets)

    def before_each(self) -> NDArray[np.int64]:
        """Return for each event t where its history ends, (T,): the first event of its instant.

        Events of one instant are no history of each other, so an event's features are the
        same whether or not the rows at and after its time exist.
        """
        first = np.ones(len(self.time), bool)
        first[1:] = self.time[1:] != self.time[:-1]
        first[self.offsets[:-1][self.lengths() > 0]] = True
        starts = np.flatnonzero(first)
        return np.repeat(starts, np.diff(np.append(starts, len(first))))

    def before_each_by(self, seconds: float) -> NDArray[np.int64]:
        """Return the same where what is less than `seconds` old is no history either, (T,).

        The times are microseconds; they are compared by whole seconds.
        """
        if not seconds or not len(self.time):
            return self.before_each()
        user = np.repeat(np.arange(len(self)), self.lengths())
        when = (self.time - self.time.min()) // _SECOND
        gap = int(np.ceil(seconds))
        width = int(when.max()) + gap + 1  # of a user: no time of one reaches into the next
        ends = np.searchsorted(user * width + when + gap, user * width + when, side="right")
        return np.clip(ends, self.offsets[:-1][user], self.before_each())

    def last(self, users: NDArray[np.integer], length: int | None = None) -> Jagged:
        """Return the last `length` (or all) item rows of `users` (B,), oldest first."""
        ends = self.offsets[1:][users]
        starts = self.offsets[:-1][users]
        if length is not None:
            starts = np.maximum(starts, ends - length)
        return self.windows(starts, ends)

    def windows(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Jagged:
        """Return item rows starts[b]:ends[b] for each b."""
        lengths = ends - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        values = self.item_row[where].astype(np.int64)
        return Jagged(torch.from_numpy(values), torch.from_numpy(offsets))
