"""Evaluation queries of a model of sessions: what came first, step by step, and what came next.

Per user: the last events before the part of one session, and all items of the user in the part.
Per event: each held-out event with what came before it in its session, and that one item.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import first_places
from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged
from recsys.features.dataset.dataset import Dataset, are_had
from recsys.features.dataset.queries import Queries, earlier_of, relevant_items
from recsys.features.dataset.sessions import Sessions, history_of, pieces
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables

with on_first_use():
    import torch

Per = Literal["user", "event"]
_Ints = NDArray[np.int64]


def build_session_queries(
    data: Dataset,
    sessions: Sessions,
    part: int,
    *,
    per: Per,
    history_length: int,
    filter_seen: bool,
    limit: int,
    seed: int,
) -> Queries:
    """Return the queries of `part` (validation or test), at most `limit` drawn by `seed`.

    `Queries.history` is a `History` and `Queries.block` holds user features alone.

    per "user": one query a user who has an interaction in the part. Its history: the last events of
    earlier parts in the session of the user's first held-out event, none where that session begins
    in the part. seen: all events of earlier parts. relevant: the items of the user in the part.
    per "event": one query for each event of the part with an earlier one in its session; earlier
    is what comes before it in the order of the log, of any part but a later one. seen: the user's
    earlier events, of all sessions. relevant: the item of the event.

    Where seen items are filtered, queries with nothing to hit are left out.
    """
    assert part in (VALIDATION, TEST)
    shape = _per_user if per == "user" else _per_event
    return shape(data, sessions, part, history_length, filter_seen, limit, seed)


def _per_user(
    data: Dataset,
    sessions: Sessions,
    part: int,
    history_length: int,
    filter_seen: bool,
    limit: int,
    seed: int,
) -> Queries:
    relevant = relevant_items(data, part, filter_seen=filter_seen)
    users = _some(np.flatnonzero(relevant.lengths().numpy() > 0), limit, seed)
    held_out = data.targets_of((part,))
    first = held_out[np.searchsorted(data.tables.events.user_row[held_out], users)]
    chosen = sessions.owner()[first]
    # Of a session, the events of earlier parts, one session after the other.
    earlier = data.part[sessions.order] < part
    ends = np.concatenate([[0], np.cumsum(earlier)])
    order = sessions.order[earlier]
    start, end = ends[sessions.offsets[chosen]], ends[sessions.offsets[chosen + 1]]
    lengths = np.minimum(end - start, history_length)
    rows = torch.from_numpy(users)
    return Queries(
        users=users,
        block=data.users.take(rows),
        history=history_of(data, order[pieces(end - lengths, lengths)], lengths),
        seen=earlier_of(data, users, part)[1].last(users),
        relevant=relevant.take(rows),
    )


def _per_event(
    data: Dataset,
    sessions: Sessions,
    part: int,
    history_length: int,
    filter_seen: bool,
    limit: int,
    seed: int,
) -> Queries:
    events = data.tables.events
    known = sessions.only(data.part <= part)
    place, start = _places(known, len(events))
    shown = data.events_of(tuple(range(part + 1)))  # by user, then in order
    shown = shown[are_had(data.schema, events)[shown]]
    asked = events_to_ask(
        data.schema, data.tables, data.part, sessions, part, filter_seen=filter_seen
    )
    asked = _some(asked, limit, seed)
    users = events.user_row[asked].astype(np.int64)
    lengths = np.minimum(place[asked] - start[asked], history_length)
    first = np.searchsorted(events.user_row[shown], users)
    num_seen = np.searchsorted(shown, asked) - first
    return Queries(
        users=users,
        block=data.users.take(torch.from_numpy(users)),
        history=history_of(data, known.order[pieces(place[asked] - lengths, lengths)], lengths),
        seen=Jagged.of_lengths(events.item_row[shown[pieces(first, num_seen)]], num_seen),
        relevant=Jagged.of_lengths(events.item_row[asked], np.ones(len(asked), np.int64)),
    )


def events_to_ask(
    schema: Schema,
    tables: Tables,
    parts: NDArray[np.int8],
    sessions: Sessions,
    part: int,
    *,
    filter_seen: bool,
) -> _Ints:
    """Return the events that the queries per event ask for, ascending, before any are drawn.

    It takes no encoded data.

    Args:
        schema: of the log.
        tables: of the log.
        parts: (E,) the part of each event.
        sessions: how the log is cut.
        part: of the queries.
        filter_seen: whether items that the user had before do not count.
    """
    events = tables.events
    place, start = _places(sessions.only(parts <= part), len(events))
    is_asked = parts == part if events.target is None else (parts == part) & events.target
    asked = np.flatnonzero(is_asked)
    asked = asked[place[asked] > start[asked]]
    if filter_seen:
        shown = np.flatnonzero((parts <= part) & are_had(schema, events))
        asked = asked[~_had_before(tables, shown, asked)]
    return asked


def _places(known: Sessions, num_events: int) -> tuple[_Ints, _Ints]:
    """Return the place of each event in `known`, -1 where it is not, and its session's, (E,)."""
    place, start = np.full(num_events, -1), np.zeros(num_events, np.int64)
    place[known.order] = np.arange(len(known.order))
    start[known.order] = np.repeat(known.offsets[:-1], known.lengths())
    return place, start


def _had_before(tables: Tables, shown: _Ints, asked: _Ints) -> NDArray[np.bool_]:
    """Return whether an event of `shown`, before it, has the user and item of each of `asked`."""
    events = tables.events
    pairs = events.user_row.astype(np.int64) * tables.items.num_rows + events.item_row
    first = shown[first_places(pairs[shown])]
    first = first[np.argsort(pairs[first])]
    at = np.minimum(np.searchsorted(pairs[first], pairs[asked]), max(len(first) - 1, 0))
    if not len(first):
        return np.zeros(len(asked), bool)
    return np.asarray((pairs[first[at]] == pairs[asked]) & (first[at] < asked))


def _some(found: _Ints, limit: int, seed: int) -> _Ints:
    """Return at most `limit` of `found`, ascending."""
    if len(found) <= limit:
        return found
    return np.sort(np.random.default_rng(seed).choice(found, limit, replace=False))
