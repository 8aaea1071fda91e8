"""Held-out rows that repeat what their user did a moment before: a view, its cart, its purchase."""

import numpy as np
from numpy.typing import NDArray

from recsys.core.order import stable_order
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events

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
