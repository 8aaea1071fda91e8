"""What `recsys init` proposes where a log writes returns as amounts below zero."""

from recsys.features.propose.draft import Draft
from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.propose.roles import has_word
from recsys.features.propose.yaml_text import flow

_AMOUNTS = {"quantity", "qty", "amount", "units", "pieces", "count", "menge", "anzahl", "total"}
_MOST = 0.5
"""A column that is negative more often holds no returns."""


def signed_amount(log: TableProfile) -> ColumnProfile | None:
    """Return the column of amounts of which some are negative, those of whole numbers first."""
    found = [column for column in log.columns.values() if _has_returns(column)]
    return min(found, key=lambda one: not one.is_whole, default=None)


def amount_lines(draft: Draft, used: set[str]) -> list[str]:
    """Return the condition that leaves out rows whose amount is negative, and say so.

    Such rows would count as purchases. The purchases that they take back stay: which ones these
    are, only a column of types says (`interactions.events.undo`).
    """
    log = draft.roles.log
    column = signed_amount(log)
    if column is None or column.name in used:
        return []
    return [amount_line(draft, log, column)]


def amount_line(draft: Draft, table: TableProfile, column: ColumnProfile) -> str:
    """Return the condition that a table's amounts be above zero, and say what it leaves out."""
    least = 1 if column.is_whole else 0
    negative = int((column.numbers < 0).sum())
    others = len(column.values) - int((column.numbers >= least).sum()) - negative
    more = f", and {others:,} in which it is null or 0" if others else ""
    draft.unsure.append(
        f"{table.given}: '{column.name}' is negative in {negative:,} rows, as returns are: "
        f"interactions.where leaves them out{more}; the purchases that they take back stay, unless "
        "a column of types names both (interactions.events.undo)"
    )
    condition = {"column": column.name, "at_least": least}
    return f"- {flow(condition)}   # returns are no purchases"


def _has_returns(column: ColumnProfile) -> bool:
    if column.type not in ("integer", "float") or not has_word(column.name, _AMOUNTS):
        return False
    return bool(0 < (column.numbers < 0).mean() < _MOST) if len(column.numbers) else False
