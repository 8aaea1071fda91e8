"""What `recsys init` proposes where purchases stand in a table of their own: a second log.

A log of views and carts whose types name no purchase, and a table that is named as orders and has
the same users and items, and times of the same form, are read as one log (`data.interactions`).
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.propose.draft import Draft, MoreLog
from recsys.features.propose.events import PURCHASE, event_column, names_purchases
from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.propose.roles import joining_keys
from recsys.features.propose.signed_amounts import amount_line, signed_amount
from recsys.features.propose.time_columns import time_columns
from recsys.features.propose.time_texts import TimeGuess
from recsys.features.tables.file_formats import FORMATS
from recsys.features.tables.id_forms import IdForm

_Clock = tuple[str, TimeGuess]


def further_log_lines(
    draft: Draft, clocks: Sequence[_Clock], used: set[str], lines: list[str]
) -> list[str]:
    """Take a table of purchases out of those unused, as a part of the log; return its conditions.

    Args:
        draft: what is known so far.
        clocks: the time of the log, if it has one.
        used: columns of the log that have a role.
        lines: of `schema.interactions`; the session leaves them where the table has none.
    """
    found, log = event_column(draft, used), draft.roles.log
    if not clocks or found is None or found[1].of_kind(PURCHASE) or signed_amount(log):
        return []
    for table in draft.roles.unused:
        more = _as_log(draft, table, clocks[0], found[0].name)
        if more is not None:
            draft.more_log = more
            draft.roles.unused.remove(table)
            draft.unsure.append(
                f"{table.given} holds the purchases that {log.given} lacks: both are read as one "
                f"log (data.interactions), its rows as '{PURCHASE}'"
            )
            _leave_session_out(draft, table, lines)
            _check(draft, more, clocks[0])
            amount = signed_amount(table)
            return [amount_line(draft, table, amount)] if amount else []
    return []


def _as_log(draft: Draft, table: TableProfile, clock: _Clock, event: str) -> MoreLog | None:
    """Return how a table is a part of the log; None: it is not."""
    roles, log = draft.roles, draft.roles.log
    own = {side: column for column, side in joining_keys(table, roles).items()}
    times = dict(time_columns(table, draft.latest))
    alike = table.files.format == log.files.format and event not in table.columns
    if not alike or not names_purchases(Path(table.given).stem) or not times or len(own) < 2:
        return None
    time = clock[0] if clock[0] in times else next(iter(times))
    if times[time].options != clock[1].options:
        draft.unsure.append(
            f"{table.given} seems to hold purchases, but the times of '{time}' are not of the form "
            f"of '{clock[0]}' in {log.given}: write them alike, and both can be read as one log "
            "(data.interactions, a list)"
        )
        return None
    pairs = ((roles.user, own["users"]), (roles.item, own["items"]), (clock[0], time))
    columns = {shown: name for shown, name in pairs if shown != name}
    amount = signed_amount(table)
    needs = amount is not None and amount.name not in log.columns
    unlike = any(shown in table.columns for shown in columns) or any(
        log.columns[shown].type != table.columns[name].type for shown, name in pairs
    )
    # What is set is text, which only columns of CSV files hold numbers in.
    if unlike or (needs and not _reads_amounts(table, log, amount)):
        return None
    first: dict[str, str | int] = {amount.name: 1} if needs and amount else {}
    return MoreLog(table, columns, (PURCHASE,), {event: PURCHASE}, first)


def _reads_amounts(table: TableProfile, log: TableProfile, amount: ColumnProfile | None) -> bool:
    alike = table.written == log.written or (amount is not None and amount.is_whole)
    return alike and FORMATS[table.files.format].untyped


def _leave_session_out(draft: Draft, table: TableProfile, lines: list[str]) -> None:
    session = draft.roles.session
    if not session or session in table.columns:
        return
    draft.roles.session = ""
    lines[:] = [line for line in lines if not line.startswith("session:")]
    draft.unsure.append(
        f"{table.given} has no '{session}': it is no session of the log; for a model of sessions, "
        f"read {draft.roles.log.given} alone and set interactions.session to it"
    )


def _check(draft: Draft, more: MoreLog, clock: _Clock) -> None:
    """Declare policies for what the ids and times of the further log suffer from."""
    roles, given = draft.roles, more.table.given
    for name in (roles.user, roles.item):
        column = more.own(name)
        if column.type == "float":
            draft.policy("float_ids", "integer", f"{given}: '{column.name}' came as floats")
        if column.nulls:
            words = f"{given}: '{column.name}' is null in {column.nulls:,} rows"
            draft.policy("bad_ids", "drop", words)
    draft.check_clock(more.own(clock[0]), clock[1], given)
    if roles.items is not None:
        form = roles.items.near.form if roles.items.near else None
        known = roles.items.table.columns[roles.items.column]
        left, right = (_written(one, form) for one in (more.own(roles.item), known))
        unknown = int(pc.sum(pc.invert(pc.is_in(left, right))).as_py() or 0)
        if unknown:
            words = f"{unknown:,} items of {given} are not in {roles.items.table.given}"
            draft.policy("unknown_items", "drop", words)


def _written(column: ColumnProfile, form: IdForm | None) -> pa.Array:
    words = column.words.cast(pa.large_string(), safe=False)
    return words if form is None else form.written(words)
