"""Sessions: each user's events cut where one visit ends and the next begins.

Where the schema names a session column, the rows of one user and one session id are a session,
wherever they are among the user's other rows. Else a pause of more than
`sessions.inactivity_minutes` ends a session, where that is set; else a user is one session. A cut
by a pause looks back alone: later events never change how earlier ones are cut.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.core.distinct import distinct_codes, first_places
from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.core.strict import StrictModel
from recsys.data.batch import History, Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events

with on_first_use():
    import torch

_MINUTE, _SECOND = 60_000_000, 1_000_000  # microseconds
_MANY_TIES = 0.05
"""Share of the steps above which a word on ties is due."""


class SessionConfig(StrictModel):
    """How a user's events are cut into sessions where the schema names no session column.

    inactivity_minutes: a longer pause than this between two events of a user ends a session. None:
    all events of a user are one session.
    """

    inactivity_minutes: Annotated[float, Field(gt=0)] | None = None
    """A longer pause ends a session; null: all events of a user are one, unless
    `schema.interactions.session` names a column."""


@dataclass(frozen=True)
class Sessions:
    """E events in S sessions: session s holds `order[offsets[s]:offsets[s + 1]]`, oldest first.

    order (E,) int64, event numbers by user, then start of the session, then time; offsets (S + 1,)
    int64; user (S,) int64 user row of each session; time (E,) int64 when (or in which order) each
    event was, by event number, where that is known. A session may hold events of several parts.
    """

    order: NDArray[np.int64]
    offsets: NDArray[np.int64]
    user: NDArray[np.int64]
    time: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user)

    def lengths(self) -> NDArray[np.int64]:
        """Return how many events each session has, (S,), at least one."""
        return np.diff(self.offsets)

    def owner(self) -> NDArray[np.int64]:
        """Return the session of each event, (E,) by event number."""
        owner = np.empty(len(self.order), np.int64)
        owner[self.order] = np.repeat(np.arange(len(self)), self.lengths())
        return owner

    def tied(self) -> float:
        """Return the share of the steps after a session's first that are as late as the one before.

        0 where no session has a second step, or no time is known.
        """
        if self.time is None:
            return 0.0
        is_first = np.zeros(len(self.order), bool)
        is_first[self.offsets[:-1]] = True
        later = ~is_first[1:]
        same = np.diff(self.time[self.order]) == 0
        return float(same[later].mean()) if later.any() else 0.0

    def in_words(self) -> str:
        """Return how many sessions there are, how long they are, and of many ties."""
        lengths = self.lengths()
        middle, long = np.quantile(lengths, [0.5, 0.99], method="lower")
        alone = float((lengths == 1).mean())
        words = (
            f"{len(self):,} sessions: half have at most {middle:,} rows, 99 % at most {long:,}; "
            f"{alone:.1%} are of a single row"
        )
        tied = self.tied()
        if tied <= _MANY_TIES:
            return words
        return (
            f"{words}; {tied:.1%} of the steps have the time (or the order) of the step before "
            "them, and among these the order of the file's rows counts: where a column of whole "
            "numbers that grow within each user says what came first, name it as "
            "schema.interactions.order, in place of time"
        )

    def only(self, keep: NDArray[np.bool_]) -> "Sessions":
        """Return the sessions of the events where `keep` (E,) holds, without the empty ones."""
        kept = keep[self.order]
        lengths = np.add.reduceat(kept.astype(np.int64), self.offsets[:-1])
        some = lengths > 0
        offsets = np.concatenate([[0], np.cumsum(lengths[some])])
        return Sessions(self.order[kept], offsets, self.user[some], self.time)


def cut_sessions(data: Dataset, config: SessionConfig) -> Sessions:
    """Return the sessions of all events of `data`.

    Raises:
        ConfigError: inactivity is set without a clock, or together with a session column.
    """
    return sessions_of(data.schema, data.tables.events, config)


def sessions_of(schema: Schema, events: Events, config: SessionConfig) -> Sessions:
    """Return the sessions of `events`, which are sorted by user, then time.

    Raises:
        ConfigError: inactivity is set without a clock, or together with a session column.
    """
    roles, minutes = schema.interactions, config.inactivity_minutes
    numbers = np.arange(len(events))
    if roles.session is not None and minutes is not None:
        raise ConfigError(
            f"sessions.inactivity_minutes is set, but the column '{roles.session}' says already "
            "which session a row is of: leave out inactivity_minutes or schema.interactions.session"
        )
    if minutes is not None and roles.time is None:
        raise ConfigError(
            "sessions.inactivity_minutes needs schema.interactions.time: without a clock no pause "
            "is known; declare the time, or leave out inactivity_minutes"
        )
    if roles.session is not None:
        assert events.session is not None
        first = _first_of_its_session(events.user_row, events.session)
        order = np.argsort(first, kind="stable")
        starts = np.flatnonzero(first[order] == order)
    else:
        new = np.ones(len(events), bool)
        new[1:] = events.user_row[1:] != events.user_row[:-1]
        if minutes is not None:
            new[1:] |= np.diff(events.time) > minutes * _MINUTE
        order, starts = numbers, np.flatnonzero(new)
    offsets = np.append(starts, len(order)).astype(np.int64)
    users = events.user_row[order[starts]].astype(np.int64)
    return Sessions(order, offsets, users, events.time)


def _first_of_its_session(
    user_row: NDArray[np.int32], session: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return for each event the number of the first event of its user and session, (E,)."""
    key = user_row.astype(np.int64) * (int(session.max(initial=0)) + 1) + session
    return first_places(key)[distinct_codes(key)[1]]


def history_of(data: Dataset, numbers: NDArray[np.int64], lengths: NDArray[np.int64]) -> History:
    """Return events as histories of catalogue rows.

    Args:
        data: what the events are of.
        numbers: (T,) event numbers, row after row, oldest first in each.
        lengths: (B,) how many of them each row has.
    """
    events = data.tables.events
    has_clock = data.schema.interactions.time is not None
    return History(
        items=Jagged.of_lengths(events.item_row[numbers], lengths),
        features=data.context.take(torch.from_numpy(numbers)),
        gap=torch.from_numpy(gaps(events.time[numbers] if has_clock else None, lengths)),
    )


def gaps(time: NDArray[np.int64] | None, lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return seconds since the step before, (T,): 0 at the first of a row; NaN without a clock.

    Args:
        time: (T,) microseconds, row after row; None: no clock.
        lengths: (B,) steps of each row.
    """
    if time is None:
        return np.full(int(lengths.sum()), np.nan, np.float32)
    passed = np.zeros(len(time), np.float32)
    passed[1:] = np.diff(time) / _SECOND
    passed[(np.cumsum(lengths) - lengths)[lengths > 0]] = 0
    return passed


def pieces(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return starts[b], starts[b] + 1, ... (lengths[b] of them) for each b, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
