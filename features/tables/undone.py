"""Rows that take earlier ones back: returns, cancellations, items taken out of a cart.

Each takes back the last row before it of the same user, item and type that no other took back
already, as brackets match. It is no interaction itself and leaves the log. The row that it took
back leaves as well, but not before it was taken back: training rows of a split by time stay where
that happened in a later part.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import Row
from recsys.features.table_roles import EventTypes
from recsys.features.tables.ledger import Drop
from recsys.features.tables.reading import TableFiles

NEVER = np.iinfo(np.int64).max
"""When a row was taken back that was not."""
RULE = "interactions.events.undo"
_EXAMPLES = 5
_Ints = NDArray[np.int64]


def taken_back(
    user_row: NDArray[np.int32],
    item_row: NDArray[np.int32],
    types: NDArray[np.int8],
    role: EventTypes,
) -> _Ints:
    """Return by which row each row was taken back, (E,), -1: none.

    Args:
        user_row: (E,) ascending; the rows of a user in their order in time.
        item_row: (E,) the items.
        types: (E,) places among `role.names`.
        role: which types take back which.
    """
    names, by = role.names, np.full(len(types), -1, np.int64)
    for undone in dict.fromkeys(role.undo.values()):
        own = np.zeros(len(names), bool)
        own[[names.index(one) for one, what in role.undo.items() if what == undone]] = True
        closes = own[types]
        rows = np.flatnonzero(closes | (types == names.index(undone)))
        if not closes.any():
            continue
        order = np.lexsort((rows, item_row[rows], user_row[rows]))
        rows = rows[order]
        level = _levels(user_row[rows], item_row[rows], closes[rows])
        order = np.lexsort((rows, level, item_row[rows], user_row[rows]))
        rows, level = rows[order], level[order]
        same = (np.diff(user_row[rows]) == 0) & (np.diff(item_row[rows]) == 0)
        same &= np.diff(level) == 0
        matched = same & ~closes[rows[:-1]] & closes[rows[1:]]
        by[rows[:-1][matched]] = rows[1:][matched]
    return by


def _levels(
    user_row: NDArray[np.int32], item_row: NDArray[np.int32], closes: NDArray[np.bool_]
) -> _Ints:
    """Return the level of each bracket of its user and item: a closing one has that of its mate."""
    step = np.where(closes, -1, 1)
    depth = np.cumsum(step)
    first = np.ones(len(depth), bool)
    first[1:] = (np.diff(user_row) != 0) | (np.diff(item_row) != 0)
    starts = np.flatnonzero(first)
    before = (depth - step)[starts]
    depth -= np.repeat(before, np.diff(np.append(starts, len(depth))))
    return np.asarray(depth + closes)


def undoing_drops(
    types: NDArray[np.int8], by: _Ints, number: _Ints, role: EventTypes, files: TableFiles
) -> list[Drop]:
    """Return what became of the rows that take others back, a drop for each type and fate.

    Args:
        types: (E,) places among `role.names`.
        by: (E,) what `taken_back` returned.
        number: (E,) row numbers over the files.
        role: which types take back which.
        files: of the log.
    """
    matched = np.zeros(len(types), bool)
    matched[by[by >= 0]] = True
    drops = []
    for undoing, undone in role.undo.items():
        own = types == role.names.index(undoing)
        for reason, rows in (
            (f"takes back an earlier '{undone}' of its user and item", own & matched),
            (f"finds no earlier '{undone}' of its user and item to take back", own & ~matched),
        ):
            found = np.sort(number[rows])
            if len(found):
                places = files.places(found[:_EXAMPLES])
                choice = f"{undoing}: {undone}"
                drops.append(
                    Drop("interactions", role.column, reason, RULE, choice, len(found), places)
                )
    return drops


def undone_drop(number: _Ints, num_later: int, role: EventTypes) -> Drop:
    """Return the drop of rows that were taken back.

    Args:
        number: (M,) their row numbers over the files.
        num_later: how many more were taken back, but in a later part of the split, and stay.
        role: which types take back which.
    """
    stay = f"; {num_later:,} more stay, as that was in a later part of the split" * (num_later > 0)
    undone = ", ".join(dict.fromkeys(role.undo.values()))
    first = np.sort(number)[:_EXAMPLES]
    return Drop(
        table="interactions",
        column=role.column,
        reason=f"taken back by a later row{stay}",
        rule=RULE,
        choice=undone,
        rows=len(number),
        examples=tuple(Row("", int(row) + 1) for row in first),
    )
