"""The interactions in memory, as columns of numbers: a few tens of bytes a row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.features.kinds.convert import join_batches
from recsys.features.schema import Schema
from recsys.features.tables.growing import GrowingArray, GrowingRows
from recsys.features.tables.ids import IdCollector, Ids
from recsys.features.tables.ledger import Drop, Ledger, Mask
from recsys.features.tables.reading import TableFiles
from recsys.features.tables.rows import RowReader, RowRoles, Rows
from recsys.features.tables.sources import Policies
from recsys.features.tables.values import refuse_useless_weights


@dataclass(frozen=True, eq=False)
class Log:
    """E rows in reading order.

    clock (E,) int64: microseconds since 1970 UTC, order values, or row numbers; the other columns
    are those of `recsys.features.tables.rows.Rows`, weight being 1 where no column says it.
    """

    users: Ids
    items: Ids
    clock: NDArray[np.int64]
    weight: NDArray[np.float32]
    rows: NDArray[np.int64]
    split: NDArray[np.int8] | None
    context: pa.Table
    ledger: Ledger
    label: NDArray[np.float32] | None = None
    outcomes: NDArray[np.float32] | None = None
    sessions: Ids | None = None
    type: NDArray[np.int8] | None = None
    target: NDArray[np.bool_] | None = None

    def columns(self) -> dict[str, NDArray[Any] | pa.Table | None]:
        """Return what becomes columns of the events, by name: ids as codes."""
        names = ("clock", "weight", "rows", "split", "context", "label", "outcomes", "type")
        found = {name: getattr(self, name) for name in (*names, "target")}
        sessions = None if self.sessions is None else self.sessions.codes
        return {**found, "user": self.users.codes, "item": self.items.codes, "session": sessions}

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
            outcomes=None if self.outcomes is None else self.outcomes[mask],
            type=None if self.type is None else self.type[mask],
            target=None if self.target is None else self.target[mask],
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
    trained: bool = False,
) -> tuple[Log, list[Drop]]:
    """Read the interactions and settle everything that needs no other table.

    `trained`: as `Ledger` has it.

    Raises:
        DataError: a column, a value or the whole table is not as declared.
    """
    roles, ledger = RowRoles.of_log(schema, split_column), Ledger(files, trained=trained)
    reader = RowReader(files, roles, policies, ledger, latest=latest)
    columns = _LogColumns(roles, ledger)
    for rows in reader.batches():
        columns.add(rows)
    reader.refuse_no_rows()
    log = columns.finish()
    drops = ledger.settle()
    reader.refuse_none_left(len(log.rows), drops)
    column = roles.weight or (roles.events and roles.events.column)
    if column and not trained and not files.is_piece:
        refuse_useless_weights(log.weight, column, files.paths[0])
    return log, drops


class _LogColumns:
    """Grows the columns of a `Log` batch by batch."""

    def __init__(self, roles: RowRoles, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ids = {
            role: IdCollector(name, ledger, roles.id_forms.get(role))
            for role, name in roles.ids.items()
        }
        self._rows = GrowingRows()
        numbers: dict[str, tuple[object, type]] = {
            "clock": (roles.time or roles.order, np.int64),
            "weight": (roles.weight or roles.events, np.float32),
            "type": (roles.events, np.int8),
            "target": (roles.targets, np.bool_),
            "label": (roles.label, np.float32),
            "part": (roles.part, np.int8),
        }
        self._numbers = {
            name: GrowingArray(dtype) for name, (role, dtype) in numbers.items() if role
        }
        if roles.outcomes:
            self._numbers["outcomes"] = GrowingArray(np.float32, len(roles.outcomes))
        self._context: dict[str, list[pa.Array]] = {name: [] for name in roles.converted}

    def add(self, rows: Rows) -> None:
        """Add the rows of one batch."""
        self._rows.append(rows.rows)
        for role, collector in self._ids.items():
            collector.add(rows.ids[role])
        for name, numbers in self._numbers.items():
            numbers.append(getattr(rows, name))
        for name, parts in self._context.items():
            parts.append(rows.columns[name])

    def finish(self) -> Log:
        """Return all batches as one `Log`."""
        pa.default_memory_pool().release_unused()  # what decoding a file took
        rows, files = self._rows.values(), self._ledger.files
        context = {
            name: join_batches(parts, files.paths[0], name, untyped=files.is_untyped(name))
            for name, parts in self._context.items()
        }
        numbers: dict[str, Any] = {name: one.values() for name, one in self._numbers.items()}
        ids = {role: collector.finish(rows) for role, collector in self._ids.items()}
        return Log(
            users=ids["user"],
            items=ids["item"],
            clock=numbers.get("clock", rows),
            weight=numbers.get("weight", np.broadcast_to(np.float32(1), len(rows))),
            rows=rows,
            split=numbers.get("part"),
            context=_table(context, len(rows)),
            ledger=self._ledger,
            label=numbers.get("label"),
            outcomes=numbers.get("outcomes"),
            sessions=ids.get("session"),
            type=numbers.get("type"),
            target=numbers.get("target"),
        )


def take_rows(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return `rows` (M,) of a table that may have no column, which Arrow's `take` empties."""
    return table.take(pa.array(rows)) if table.num_columns else _table({}, len(rows))


def _table(columns: Mapping[str, pa.ChunkedArray], num_rows: int) -> pa.Table:
    """A table without columns still has rows."""
    return pa.table({**columns, "": np.zeros(num_rows, np.int8)}).select(list(columns))
