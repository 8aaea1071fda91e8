"""The parts of a split: how many rows, users and items each has, when, and who is new there."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.propose.text_grid import grid
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class PartFacts:
    """One part of the split. Cold: without a training row; spans are ISO times or orders.

    users_without_past: its users who have no row in an earlier part, and so no history.
    """

    part: str
    rows: int
    users: int
    items: int
    first: str
    last: str
    cold_item_rows: int
    cold_user_rows: int
    users_without_past: int = 0
    cold_items: int = 0


def part_facts(schema: Schema, tables: Tables, parts: NDArray[np.int8]) -> list[PartFacts]:
    """Return what the parts hold; parts: (E,) that of each event."""
    events = tables.events
    known_items = np.zeros(tables.items.num_rows, bool)
    known_users = np.zeros(tables.users.num_rows, bool)
    seen_users = np.zeros(tables.users.num_rows, bool)
    has_clock = schema.interactions.time is not None
    facts = []
    for number, name in enumerate(PARTS):
        rows = np.flatnonzero(parts == number)
        items, users, time = events.item_row[rows], events.user_row[rows], events.time[rows]
        if number == 0:
            known_items[items] = known_users[users] = True
        here, of_items = distinct(users), distinct(items)
        facts.append(
            PartFacts(
                part=name,
                rows=len(rows),
                users=len(here),
                items=len(of_items),
                first=_instant(time.min(), has_clock) if len(rows) else "",
                last=_instant(time.max(), has_clock) if len(rows) else "",
                cold_item_rows=int((~known_items[items]).sum()),
                cold_user_rows=int((~known_users[users]).sum()),
                users_without_past=int((~seen_users[here]).sum()) if number else 0,
                cold_items=int((~known_items[of_items]).sum()),
            )
        )
        seen_users[users] = True
    return facts


def part_lines(parts: tuple[PartFacts, ...]) -> list[str]:
    """Return the parts as text: what each holds, and when."""
    head = ("part", "rows", "users", "items", "rows of cold items", "of cold users")
    times = [(one.part, one.first, one.last) for one in parts]
    out = [*grid(head, [_row(one) for one in parts]), "", *grid(("part", "from", "to"), times)]
    for one in parts[1:]:
        if one.rows:
            out.append(
                f"{one.part}: {one.users_without_past:,} of {one.users:,} users have no earlier "
                f"row ({one.users_without_past / one.users:.0%}), {one.cold_items:,} of "
                f"{one.items:,} items no training row ({one.cold_items / one.items:.0%})"
            )
    return out


def _row(one: PartFacts) -> tuple[str, ...]:
    numbers = (one.rows, one.users, one.items, one.cold_item_rows, one.cold_user_rows)
    return (one.part, *(f"{number:,}" for number in numbers))


def _instant(value: np.int64, has_clock: bool) -> str:
    if not has_clock:
        return str(value)
    return datetime.fromtimestamp(int(value) / 1e6, UTC).isoformat(timespec="seconds")
