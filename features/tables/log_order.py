"""The columns of a log, by user, then time, then position in the files."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.codes import looked_up
from recsys.core.order import stable_order
from recsys.features.tables.log import take_rows


def columns_in_order(
    columns: dict[str, Any],
    user_row: NDArray[np.int32],
    item_row: NDArray[np.int32],
    *,
    has_clock: bool,
) -> dict[str, Any]:
    """Return the columns of the events, by the names of their fields, in the order of these.

    Args:
        columns: of the log (`Log.columns`); each leaves it, and memory, when it is done. They are
            most of what is in memory here: nobody else is to hold them.
        user_row: row of each user code.
        item_row: row of each item code.
        has_clock: whether a time or an order is declared; rows are in the order of the files else.
    """
    users = looked_up(user_row, columns.pop("user"))
    rows = columns.pop("rows")
    first, is_whole = _whole(rows)
    if is_whole:  # so a row's number says itself
        del rows
    if not has_clock:
        columns["clock"] = np.arange(len(users))
    order = stable_order(users, columns["clock"])
    found: dict[str, Any] = {"user_row": users[order]}
    del users
    found["item_row"] = looked_up(item_row, columns.pop("item")[order])
    found["time"] = columns.pop("clock")[order]
    found["context"] = take_rows(columns.pop("context"), order)
    for name in tuple(columns):
        values = columns.pop(name)
        found[name] = None if values is None else values[order]
        del values
    if not is_whole:
        return {**found, "row": rows[order]}
    order += first
    return {**found, "row": order}


def _whole(rows: NDArray[np.int64]) -> tuple[int, bool]:
    """Return the first of ascending row numbers, and whether none is left out; False of none."""
    if not len(rows):
        return 0, False
    return int(rows[0]), int(rows[-1] - rows[0]) == len(rows) - 1
