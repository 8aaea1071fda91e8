"""The interactions as columns of numbers: one pass over the files, a few tens of bytes a row.

Row by row checks happen while batches stream by (conditions first, then ids, weights, numbers);
what only the whole column tells (the unit of times, the type of ids) is checked at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.kinds.convert import columns_of, convert_columns, join_batches, number
from recsys.features.schema import Condition, Schema
from recsys.features.tables.growing import GrowingArray
from recsys.features.tables.ids import IdCollector, Ids
from recsys.features.tables.labels import labels
from recsys.features.tables.ledger import (
    Cells,
    Drop,
    Ledger,
    Mask,
    cells,
    is_list,
    is_text,
    mask_of,
)
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import check_times, raw_times

_PARTS = {"train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2}


@dataclass(frozen=True, eq=False)
class Log:
    """E rows in reading order. clock (E,) int64: raw times, order values, or row numbers."""

    users: Ids
    items: Ids
    clock: NDArray[np.int64]
    weight: NDArray[np.float32]
    rows: NDArray[np.int64]
    split: NDArray[np.int8] | None
    context: pa.Table
    ledger: Ledger
    label: NDArray[np.float32] | None = None
    sessions: Ids | None = None

    def keep(self, mask: Mask) -> "Log":
        """Return the rows where `mask` (E,) holds."""
        if mask.all():
            return self
        rows = self.rows[mask]
        return replace(
            self,
            users=self.users.with_rows(self.users.codes[mask], rows),
            items=self.items.with_rows(self.items.codes[mask], rows),
            clock=self.clock[mask],
            weight=self.weight[mask],
            rows=rows,
            split=None if self.split is None else self.split[mask],
            context=take_rows(self.context, np.flatnonzero(mask)),
            label=None if self.label is None else self.label[mask],
            sessions=None
            if self.sessions is None
            else self.sessions.with_rows(self.sessions.codes[mask], rows),
        )


def read_log(
    files: TableFiles,
    schema: Schema,
    policies: Policies,
    *,
    split_column: str | None,
    latest: float,
) -> tuple[Log, list[Drop]]:
    """Read the interactions and settle everything that needs no other table.

    Raises:
        DataError: a column, a value or the whole table is not as declared.
    """
    reader = _LogReader(files, schema, policies, split_column)
    num_rows = 0
    for batch in files.batches(reader.columns):
        num_rows += len(batch.rows)
        reader.add(batch)
    if num_rows == 0:
        raise DataError(f"{files.paths[0]}: the interactions table is empty")
    log = reader.finish()
    time = schema.interactions.time
    if time is not None:
        good = check_times(
            log.clock,
            log.rows,
            column=time.column,
            unit=time.unit,
            ledger=log.ledger,
            policies=policies,
            latest=latest,
        )
        log = log.keep(good)
    drops = log.ledger.settle()
    if len(log.rows) == 0:
        what = "; ".join(f"{drop.rows:,}: '{drop.column}' {drop.reason}" for drop in drops)
        raise DataError(
            f"{files.paths[0]}: none of {num_rows:,} interactions is left ({what}); "
            "change interactions.where or the policies"
        )
    return log, drops


class _LogReader:
    """Grows the columns of a `Log` batch by batch."""

    def __init__(
        self, files: TableFiles, schema: Schema, policies: Policies, split_column: str | None
    ) -> None:
        roles = schema.interactions
        self._roles, self._policies, self._split_column = roles, policies, split_column
        self._ledger = Ledger(files)
        self._users = IdCollector(roles.user, self._ledger, policies)
        self._items = IdCollector(roles.item, self._ledger, policies)
        self._sessions = (
            IdCollector(roles.session, self._ledger, policies) if roles.session else None
        )
        self._features = schema.features_of("interactions")
        self._clock, self._rows = GrowingArray(np.int64), GrowingArray(np.int64)
        self._weight, self._split = GrowingArray(np.float32), GrowingArray(np.int8)
        self._label = GrowingArray(np.float32)
        self._context: dict[str, list[pa.Array]] = {n: [] for n in columns_of(self._features)}

    @property
    def columns(self) -> list[str]:
        """What is read: each column once."""
        roles = self._roles
        clock = roles.time.column if roles.time else roles.order
        wanted = [roles.user, roles.item, roles.session, clock, roles.weight, self._split_column]
        wanted += [roles.label.column] if roles.label else []
        wanted += [condition.column for condition in roles.where]
        wanted += list(self._context)
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def add(self, batch: Batch) -> None:
        """Filter, check and keep one batch."""
        chosen = conditions_met(batch.table, batch.rows, self._roles.where, self._ledger)
        table = batch.table if chosen.all() else batch.table.filter(pa.array(chosen))
        rows = batch.rows[chosen]
        if len(rows) == 0:
            return

        def cell(name: str) -> Cells:
            return cells(table, name, rows, self._ledger)

        users, good = self._users.check(cell(self._roles.user))
        items, usable = self._items.check(cell(self._roles.item))
        good &= usable
        if self._sessions is not None and self._roles.session is not None:
            sessions, usable = self._sessions.check(cell(self._roles.session))
            good &= usable
        weight, usable = self._weights(cell, len(rows))
        good &= usable
        clock, usable = self._times(cell, rows)
        good &= usable
        if self._roles.label is not None:
            label, usable = labels(
                cell(self._roles.label.column), self._roles.label, self._policies
            )
            good &= usable
            self._label.append(label[good])
        mask = pa.array(good)
        self._users.add(users, good)
        self._items.add(items, good)
        if self._sessions is not None:
            self._sessions.add(sessions, good)
        self._clock.append(clock[good])
        self._rows.append(rows[good])
        if weight is not None:
            self._weight.append(weight[good])
        if self._split_column is not None:
            self._split.append(split_parts(cell(self._split_column))[good])
        for name, values in convert_columns(cell, self._features, self._policies).items():
            self._context[name].append(values if good.all() else values.filter(mask))

    def finish(self) -> Log:
        """Return all batches as one `Log`."""
        rows = self._rows.values()
        files = self._ledger.files
        context = {
            name: join_batches(
                parts, f"{files.paths[0]}, column '{name}'", untyped=files.is_untyped(name)
            )
            for name, parts in self._context.items()
        }
        return Log(
            users=self._users.finish(rows),
            items=self._items.finish(rows),
            clock=self._clock.values(),
            weight=np.ones(len(rows), np.float32)
            if self._roles.weight is None
            else self._weight.values(),
            rows=rows,
            split=None if self._split_column is None else self._split.values(),
            context=_table(context, len(rows)),
            ledger=self._ledger,
            label=None if self._roles.label is None else self._label.values(),
            sessions=None if self._sessions is None else self._sessions.finish(rows),
        )

    def _weights(self, cell: Any, size: int) -> tuple[NDArray[np.float64] | None, Mask]:
        name = self._roles.weight
        if name is None:
            return None, np.ones(size, bool)
        column = cell(name)
        values = np.asarray(number(column, self._policies).fill_null(np.nan))
        lost = np.isnan(values)
        if not lost.any():
            column.note(values < 0, "the weight is negative", "a weight is zero or more")
            return values, values >= 0
        infinite = lost & _infinite(column)
        remedy = "fill it in the source, or leave such rows out with interactions.where"
        column.note(lost & ~infinite, "the weight is null or NaN", remedy, show=False)
        column.note(values < 0, "the weight is negative", "a weight is zero or more")
        return values, values >= 0

    def _times(self, cell: Any, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Mask]:
        every = np.ones(len(rows), bool)
        if self._roles.time is not None:
            return raw_times(cell(self._roles.time.column), self._roles.time.unit), every
        if self._roles.order is not None:
            return self._order(cell(self._roles.order))
        return rows, every

    def _order(self, column: Cells) -> tuple[NDArray[np.int64], Mask]:
        values = np.asarray(number(column, self._policies).fill_null(np.nan))
        policy = f"bad_times: {self._policies.bad_times}"
        null, negative = np.isnan(values), values < 0
        leave = f"leave such rows out with where: [{{column: {column.column}, at_least: 0}}]"
        column.note(null, "the order is null", leave, policy=policy, show=False)
        column.note(negative, "the order is negative", leave, policy=policy)
        fraction = ~null & (values != np.floor(values))
        column.note(fraction, "the order is a fraction", "an order is a whole number")
        good = ~null & ~negative & ~fraction
        if pa.types.is_integer(column.values.type):  # exact above 2**53
            return np.asarray(column.values.fill_null(0)).astype(np.int64), good
        return np.where(good, values, 0).astype(np.int64), good


def take_rows(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return `rows` (M,) of a table that may have no column, which Arrow's `take` empties."""
    return table.take(pa.array(rows)) if table.num_columns else _table({}, len(rows))


def _table(columns: Mapping[str, pa.ChunkedArray], num_rows: int) -> pa.Table:
    """A table without columns still has rows."""
    return pa.table({**columns, "": np.zeros(num_rows, np.int8)}).select(list(columns))


def conditions_met(
    table: pa.Table, rows: NDArray[np.int64], where: Sequence[Condition], ledger: Ledger
) -> Mask:
    """Return which rows meet every condition, (N,) bool; null meets none. Others are counted."""
    met = np.ones(len(rows), bool)
    for condition in where:
        column = cells(table, condition.column, rows, ledger)
        holds = _holds(column, condition)
        column.note(met & ~holds, f"not {_words(condition)}", "", policy="where", show=False)
        met &= holds
    return met


def split_parts(column: Cells) -> NDArray[np.int8]:
    """Return the split column as (N,) int8: 0 train, 1 validation, 2 test."""
    values = column.values
    remedy = "the split column holds the words train, validation (valid, val) and test"
    if pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if not is_text(values.type):
        column.refuse(f"the split is {values.type}", remedy)
    words = pc.utf8_lower(pc.utf8_trim_whitespace(values)).cast(pa.string())
    at = np.asarray(pc.index_in(words, pa.array(list(_PARTS))).fill_null(-1))
    column.note(at < 0, "no known part of the split", remedy)
    return np.asarray(np.array([*_PARTS.values(), 0], np.int8)[at])


def _holds(column: Cells, condition: Condition) -> Mask:
    values = column.values
    if is_list(values.type):
        column.refuse("a condition on a list", "conditions are on columns of one value a row")
    holds = np.ones(len(values), bool)
    if condition.one_of is not None:
        holds &= _is_one_of(column, condition.one_of)
    if condition.at_least is not None or condition.at_most is not None:
        scratch = Ledger(column.ledger.files)  # an infinity in a condition is no finding
        values = number(replace(column, ledger=scratch), Policies(infinite_numbers="null"))
        scratch.settle()
        numbers = np.asarray(values.fill_null(np.nan))
        low = -np.inf if condition.at_least is None else condition.at_least
        high = np.inf if condition.at_most is None else condition.at_most
        holds &= (numbers >= low) & (numbers <= high)
    return holds


def _is_one_of(column: Cells, wanted: Sequence[str | int]) -> Mask:
    values = column.values
    if is_text(values.type):
        return mask_of(pc.is_in(values, pa.array([str(one) for one in wanted], values.type)))
    texts = [one for one in wanted if isinstance(one, str)]
    if texts:
        column.refuse(
            f"the condition one_of names {texts[0]!r}, but the column is {values.type}",
            "write the values of one_of without quotes",
        )
    kind = values.type
    if pa.types.is_uint64(kind):
        return mask_of(pc.is_in(values, pa.array([one for one in wanted if int(one) >= 0], kind)))
    if pa.types.is_floating(kind):
        numbers = pa.array([float(one) for one in wanted])
        return mask_of(pc.is_in(values.cast(pa.float64()), numbers))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return mask_of(pc.is_in(values.cast(pa.int64()), pa.array(list(wanted), pa.int64())))
    column.refuse(f"a condition on {kind}", "conditions are on numbers or text")


def _words(condition: Condition) -> str:
    bounds: Mapping[str, object] = {
        "at least": condition.at_least,
        "at most": condition.at_most,
        "one of": None if condition.one_of is None else list(condition.one_of),
    }
    return " and ".join(
        f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
        for words, value in bounds.items()
        if value is not None
    )


def _infinite(column: Cells) -> Mask:
    """Which values were infinities before they became null (the ledger has them already)."""
    if is_text(column.values.type):
        words = pc.utf8_lower(column.values)
        return mask_of(pc.match_substring_regex(words, r"^[+-]?inf(inity)?$"))
    if pa.types.is_floating(column.values.type):
        return mask_of(pc.is_inf(column.values))
    return np.zeros(len(column.values), bool)
