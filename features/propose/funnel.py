"""Held-out rows that repeat what their user did a moment before: a view, its cart, its purchase.

In the rows of the log, and in the queries of a model of sessions that ask after every step.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.core.order import stable_order
from recsys.features.dataset.session_queries import events_to_ask
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import PART_NAMES
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables

HOUR = 3_600_000_000  # microseconds
_MUCH = 0.2
"""Share of the rows asked for above which a word is due."""


def just_before(schema: Schema, events: Events) -> NDArray[np.bool_] | None:
    """Return whether a row has an earlier one of its user and item in its session or hour, (E,).

    None: the log has neither a time nor sessions.
    """
    roles, (found, same) = schema.interactions, _neighbours(events)
    if roles.time is not None:
        near = np.diff(events.time[found]) <= HOUR
    elif events.session is not None:
        near = np.diff(events.session[found]) == 0
    else:
        return None
    before = np.zeros(len(events), bool)
    before[found[1:][same & near]] = True
    return before


def _neighbours(events: Events) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows by user, item and time, and which have both of the one before."""
    order = stable_order(events.user_row, events.item_row)
    same = (np.diff(events.user_row[order]) == 0) & (np.diff(events.item_row[order]) == 0)
    return order, same


def asked_rows(events: Events, parts: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return which held-out rows are asked for, (E,)."""
    return parts > 0 if events.target is None else (parts > 0) & events.target


def funnel_words(schema: Schema, events: Events, parts: NDArray[np.int8]) -> list[str]:
    """Return what is to be said of held-out rows that repeat what their user did just before."""
    before = None if schema.interactions.label is not None else just_before(schema, events)
    asked = asked_rows(events, parts)
    if before is None or not asked.any():
        return []
    count, share = int((before & asked).sum()), float(before[asked].mean())
    if share < _MUCH:
        return []
    where = "hour" if schema.interactions.time is not None else "session"
    words = (
        f"{count:,} held-out rows ({share:.0%}) have an earlier row of their user and item in the "
        f"same {where}, as a purchase has its view and its cart: whoever sees that row finds the "
        "item by repeating it"
    )
    if events.target is None:
        return [f"{words}; name the rows that are asked for: interactions.targets"]
    return [f"{words}; training.history_gap_minutes keeps it out of a two-tower's histories"]


def repeated_in_session(
    item_row: NDArray[np.int32], sessions: Sessions, history_length: int
) -> NDArray[np.bool_]:
    """Return whether a row's item is among the rows that its session has before it, (E,).

    item_row: (E,). history_length: how many rows before it count, at most.
    """
    session, item = sessions.owner()[sessions.order], item_row[sessions.order]
    place = np.lexsort((item, session))  # stable: those of one item stay in their order
    same = (np.diff(session[place]) == 0) & (np.diff(item[place]) == 0)
    near = np.diff(place) <= history_length
    repeated = np.zeros(len(item_row), bool)
    repeated[sessions.order[place[1:][same & near]]] = True
    return repeated


def repeat_query_words(
    schema: Schema,
    tables: Tables,
    parts: NDArray[np.int8],
    sessions: Sessions,
    *,
    part: int,
    history_length: int,
    filter_seen: bool,
) -> list[str]:
    """Return what is to be said where queries of a part, one an event, are answered by repeating.

    Args:
        schema: of the log.
        tables: of the log.
        parts: (E,) the part of each event.
        sessions: how the log is cut.
        part: that the queries are of.
        history_length: rows of its session that a query has, at most.
        filter_seen: whether items that the user had before do not count.
    """
    asked = events_to_ask(schema, tables, parts, sessions, part, filter_seen=filter_seen)
    again = repeated_in_session(tables.events.item_row, sessions, history_length)[asked]
    if not len(asked) or again.mean() < _MUCH:
        return []
    words = (
        f"evaluation.queries is events, and {int(again.sum()):,} of {len(asked):,} "
        f"{PART_NAMES[part]} queries ({again.mean():.0%}) ask for an item that is in their session "
        "before: a list that repeats the session finds these"
    )
    if tables.events.target is None:
        return [f"{words}; the baseline session_items is that list"]
    return [
        f"{words}, as a purchase has its view and its cart; evaluation.queries: users, with all "
        "rows of a user as one session (no interactions.session, no sessions.inactivity_minutes), "
        "asks from what came before the part"
    ]
