"""Rows that are there twice, items of one title, and how many users and items count in effect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.codes import whole_runs
from recsys.core.distinct import distinct_codes, distinct_counts
from recsys.core.order import narrowed
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables
from recsys.features.tables.ledger import is_list

_SHOWN = 3
_MANY_TITLES = 0.01
_MANY_ROWS = 0.01


@dataclass(frozen=True)
class Repeats:
    """What a log and a catalogue hold more than once.

    exact_rows: rows of the log beyond the first of those that are equal in every column that is
    read. same_title: items whose title another one has, too; None: items have no title.
    titles: the most frequent of these, with their numbers of items.
    """

    exact_rows: int
    same_title: int | None = None
    titles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Spread:
    """How many users and items there are in effect: exp of the entropy of their shares of rows.

    n of equal shares are n; a few with most of the rows are hardly more than these few. top_items:
    the share of the rows that the most frequent hundredth of the items has.
    """

    users: float
    items: float
    top_items: float


def repeats(schema: Schema, tables: Tables) -> Repeats:
    """Count equal rows of the log, and items of one title."""
    exact = _exact_rows(schema, tables)
    title = None if schema.items is None else schema.items.title
    if title is None or title not in tables.items.column_names:
        return Repeats(exact)
    column = tables.items.column(title)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return Repeats(exact)
    words = pc.utf8_trim_whitespace(pc.utf8_lower(column.drop_null()))
    counts = words.value_counts()
    many = counts.field("counts").to_numpy(zero_copy_only=False)
    order = np.argsort(-many, kind="stable")
    order = order[many[order] > 1]
    names = counts.field("values")
    shown = tuple((str(names[int(at)].as_py()), int(many[at])) for at in order[:_SHOWN])
    return Repeats(exact, int(many[order].sum()), shown)


def repeat_lines(found: Repeats, spread: Spread) -> list[str]:
    """Return both as text."""
    out = [f"exact duplicate rows: {found.exact_rows:,}"]
    if found.same_title:
        shown = ", ".join(f"'{title}' {count:,}" for title, count in found.titles)
        out.append(f"items that share their title with another: {found.same_title:,} ({shown})")
    out.append(
        f"as many rows as {spread.users:,.0f} users and {spread.items:,.0f} items of equal shares "
        f"would have; 1 % of the items have {spread.top_items:.0%} of the rows"
    )
    return out


def repeat_warnings(found: Repeats, num_events: int, num_items: int) -> list[str]:
    """Return which of it is much."""
    warnings = []
    if found.exact_rows > _MANY_ROWS * num_events:
        warnings.append(
            f"{found.exact_rows:,} rows are equal to another one in every column that is read "
            f"({found.exact_rows / num_events:.0%}): they may be exported or joined twice"
        )
    if found.same_title and found.same_title > _MANY_TITLES * num_items:
        title, count = found.titles[0]
        warnings.append(
            f"{found.same_title:,} of {num_items:,} items share their title with another "
            f"('{title}' is that of {count:,}): variants of one thing compete for a place in lists"
        )
    return warnings


def spread(user_counts: NDArray[np.int64], item_counts: NDArray[np.int64]) -> Spread:
    """Return how rows are spread, from the numbers of rows of the users (U,) and items (V,)."""
    most = np.sort(item_counts)[::-1][: max(1, len(item_counts) // 100)]
    top = float(most.sum() / max(item_counts.sum(), 1))
    return Spread(_effective(user_counts), _effective(item_counts), top)


def _effective(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _exact_rows(schema: Schema, tables: Tables) -> int:
    """Count rows beyond the first of equal ones: those of equal roles first, then their columns."""
    events = tables.events
    roles = schema.interactions
    timed = roles.time is not None or roles.order is not None
    found = 0
    for some in whole_runs(events.user_row):  # equal rows are of one user
        pairs = events.user_row[some] * np.int64(tables.items.num_rows) + events.item_row[some]
        if timed:
            pairs = _joined(pairs, events.time[some])
        values, counts = distinct_counts(pairs)
        several = values[counts > 1]
        if len(several):
            at = np.minimum(np.searchsorted(several, pairs), len(several) - 1)
            rows = np.flatnonzero(several[at] == pairs)
            found += _equal_rows(events, some.start + rows, at[rows])
    return found


def _joined(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number for each pair of numbers, equal where both are.

    first: from 0 on.
    """
    room, top = np.iinfo(np.int64).max, int(first.max(initial=0))
    near = narrowed(second)
    if near is None or top >= room // (near[1] + 1):
        values, codes = distinct_codes(second)
        near = codes, len(values) - 1
    numbers, size = near[0], near[1] + 1
    if top >= room // size:
        first = distinct_codes(first)[1]
    return first * size + numbers


def _equal_rows(events: Events, rows: NDArray[np.int64], group: NDArray[np.int64]) -> int:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"group": pa.array(group)}
    if events.label is not None:
        columns["label"] = pa.array(events.label[rows])
    columns["weight"] = pa.array(events.weight[rows])
    picked = pa.array(rows)
    for number, name in enumerate(events.context.column_names):
        column = events.context.column(name)
        if is_list(column.type):
            continue
        taken = column.take(picked)
        kind = taken.type
        if pa.types.is_dictionary(kind):
            taken = taken.cast(kind.value_type)
        columns[f"context {number}"] = taken
    names: Sequence[str] = list(columns)
    return len(rows) - pa.table(columns).group_by(names).aggregate([]).num_rows
