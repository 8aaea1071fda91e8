"""The reader of rows: what is in memory, what streams by and what is to be scored is read here.

A `RowReader` takes batches of rows known by file and number, the roles that columns play, and
the policies. It checks and converts each batch once: conditions first, then ids, weights, times,
labels, parts of the split, then the columns of features. A row that breaks a rule is a finding of
the ledger, whatever is done with the rows that are left: logs in memory join them
(`recsys.features.tables.log`), streamed logs pass over them (`recsys.features.clicks`), scoring
encodes them (`recsys.features.requests`). Between batches the reader keeps counts alone.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.kinds.convert import columns_of, common_type, convert_columns
from recsys.features.kinds.feature import Feature
from recsys.features.schema import Condition, LabelColumn, Outcome, Schema, TimeColumn
from recsys.features.tables.conditions import conditions_met
from recsys.features.tables.ids import IdCheck
from recsys.features.tables.ledger import Cells, Drop, Ledger, Mask, Tally, cells
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.sources import Policies, Rule
from recsys.features.tables.times import TimeCheck
from recsys.features.tables.values import labels, orders, outcomes, split_parts, weights

_LACKING = "the file has no such column, others of the table have; it is null there"
_AS_UTC = Rule("time zone", choice="")
_NULL_THERE = Rule("missing column", choice="")
IdRole = Literal["user", "item", "session", "key"]
"""Whose ids: of a log, or the key of a table with one row a key."""
CellOf = Callable[[str], Cells]


@dataclass(frozen=True, kw_only=True)
class RowRoles:
    """What is read of a table: the columns that play a role, those of features, and others.

    plain: columns that are kept as they are where no feature reads them. called: column of a
    feature -> its name in the table, where it is another one.
    """

    ids: Mapping[IdRole, str] = field(default_factory=dict)
    weight: str | None = None
    time: TimeColumn | None = None
    order: str | None = None
    label: LabelColumn | None = None
    outcomes: Sequence[Outcome] = ()
    part: str | None = None
    where: Sequence[Condition] = ()
    features: Sequence[Feature] = ()
    plain: Sequence[str] = ()
    called: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_log(
        cls, schema: Schema, part: str | None, features: Sequence[Feature] | None = None
    ) -> "RowRoles":
        """Return every role that the schema gives a column of the interactions.

        Args:
            schema: of the log.
            part: the column that says train, validation or test, where there is one.
            features: of the interactions; None: all.
        """
        roles = schema.interactions
        ids: dict[IdRole, str | None] = {
            "user": roles.user,
            "item": roles.item,
            "session": roles.session,
        }
        return cls(
            ids={role: column for role, column in ids.items() if column},
            weight=roles.weight,
            time=roles.time,
            order=roles.order,
            label=roles.label,
            outcomes=roles.outcomes,
            part=part,
            where=roles.where,
            features=schema.features_of("interactions") if features is None else features,
        )

    @property
    def converted(self) -> list[str]:
        """The columns of `Rows.columns`."""
        return list(dict.fromkeys([*self.plain, *columns_of(self.features)]))

    @property
    def optional(self) -> list[str]:
        """The columns that a file of several may lack: those of features alone."""
        needed = self._needed
        return [name for name in self.converted if name not in needed]

    @property
    def columns(self) -> list[str]:
        """What is read, each column once."""
        return list(dict.fromkeys([*self._needed, *self.converted]))

    @property
    def _needed(self) -> list[str]:
        """The columns with a role of their own."""
        clock = self.time.column if self.time else self.order
        wanted = [*self.ids.values(), clock, self.weight, self.part]
        wanted += [self.label.column] if self.label else []
        wanted += [outcome.column for outcome in self.outcomes]
        wanted += [condition.column for condition in self.where]
        return [name for name in wanted if name is not None]


@dataclass(frozen=True, eq=False)
class Rows:
    """The N usable rows of one batch; what has no role is None.

    rows (N,) int64: numbers over the files. ids: role -> (N,) dictionary of whole numbers (int64,
    uint64) or text (large_string), none null. clock (N,) int64: times in the unit of their column
    (microseconds for `datetime`), or order values. weight (N,) float32, zero or more. label (N,)
    float32, 0 or 1. outcomes (N, K) float32, 0, 1 or NaN where unknown. part (N,) int8: 0 train,
    1 validation, 2 test. columns: source column -> (N,) values as
    `recsys.features.kinds.convert.convert_columns` gives them, or as they are.
    """

    rows: NDArray[np.int64]
    ids: Mapping[IdRole, pa.DictionaryArray]
    columns: Mapping[str, pa.Array]
    clock: NDArray[np.int64] | None = None
    weight: NDArray[np.float32] | None = None
    label: NDArray[np.float32] | None = None
    outcomes: NDArray[np.float32] | None = None
    part: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.rows)


class RowReader:
    """Checks and converts rows, batch by batch, in reading order."""

    def __init__(
        self,
        files: TableFiles,
        roles: RowRoles,
        policies: Policies,
        ledger: Ledger,
        *,
        latest: float = np.inf,
    ) -> None:
        """Get ready.

        Args:
            files: where the rows are.
            roles: what is read of them.
            policies: what is done with rows that break a rule.
            ledger: for what is found.
            latest: the instant after which a time is in the future, in seconds since 1970.
        """
        self._files, self._roles, self._policies, self._ledger = files, roles, policies, ledger
        self._ids = {role: IdCheck(column, ledger, policies) for role, column in roles.ids.items()}
        self._time = None
        if roles.time is not None:
            self._time = TimeCheck(roles.time.column, roles.time.unit, policies, latest)
        self._types: dict[str, tuple[pa.DataType, pa.DataType, int]] = {}
        self._without_zone, self._has_zone = Tally(), False
        self.num_read = 0
        """Rows of the files so far, those left out among them."""

    def batches(self) -> Generator[Rows]:
        """Yield the usable rows of all files, those of a batch at a time, if there are some.

        Raises:
            DataError: a column is missing, or wrong as a whole. Single bad rows are in the ledger
                once the last batch was asked for.
        """
        for batch in self._files.batches(self._roles.columns, some=self._roles.optional):
            rows = self.read(batch)
            if len(rows):
                yield rows
        if self._time is not None:
            self._time.finish(self._ledger)
        if self._has_zone and self._without_zone.count and self._roles.time is not None:
            self._ledger.note_tally(
                self._roles.time.column,
                "times without a zone beside times with one, read as UTC",
                self._without_zone,
                rule=_AS_UTC,
            )

    def read(self, batch: Batch) -> Rows:
        """Return the usable rows of one batch.

        Raises:
            DataError: a column is wrong as a whole.
        """
        self.num_read += len(batch.rows)
        chosen = conditions_met(batch.table, batch.rows, self._roles.where, self._ledger)
        table = batch.table if chosen.all() else batch.table.filter(pa.array(chosen))
        rows = batch.rows[chosen]
        if len(rows) == 0:
            return self._none()

        for name in batch.lacking:
            self._ledger.note(name, _LACKING, rows, rule=_NULL_THERE)

        def cell(name: str) -> Cells:
            return cells(table, self._roles.called.get(name, name), rows, self._ledger)

        ids = {role: check.check(cell(check.column)) for role, check in self._ids.items()}
        values = self._values(cell)
        good = np.ones(len(rows), bool)
        for _, usable in [*ids.values(), *values.values()]:
            good &= usable
        columns = {name: cell(name).values for name in self._roles.plain}
        columns |= convert_columns(cell, self._roles.features, self._policies)
        self._check_types(cell, columns)
        numbers = {name: _kept(found, good) for name, (found, _) in values.items()}
        return Rows(
            _kept(rows, good),
            {role: _kept(found, good) for role, (found, _) in ids.items()},
            {name: _kept(found, good) for name, found in columns.items()},
            **numbers,
        )

    def refuse_no_rows(self) -> None:
        """Refuse a table that had no rows, whatever was to be done with them.

        Raises:
            DataError: so it is.
        """
        if self.num_read == 0:
            raise DataError(f"the {self._files.table} table is empty", file=self._files.paths[0])

    def refuse_none_left(self, num_left: int, drops: Sequence[Drop]) -> None:
        """Refuse a log of whose rows none is left.

        Raises:
            DataError: so it is; `drops` say why.
        """
        if num_left == 0:
            what = "; ".join(f"{drop.rows:,}: '{drop.column}' {drop.reason}" for drop in drops)
            raise DataError(
                f"none of {self.num_read:,} {self._files.table} is left ({what})",
                file=self._files.paths[0],
                remedy="change interactions.where or the policies",
            )

    def _values(self, cell: CellOf) -> dict[str, tuple[NDArray[Any], Mask]]:
        """Return the numbers of the roles, (N,), by their name in `Rows`, and which are usable."""
        roles, policies = self._roles, self._policies
        found: dict[str, tuple[NDArray[Any], Mask]] = {}
        if roles.weight is not None:
            found["weight"] = weights(cell(roles.weight), policies)
        if roles.time is not None and self._time is not None:
            times = cell(roles.time.column)
            found["clock"] = self._time.check(times)
            if pa.types.is_timestamp(times.values.type):
                if times.values.type.tz is None:
                    self._without_zone.add(times.rows)
                else:
                    self._has_zone = True
        elif roles.order is not None:
            found["clock"] = orders(cell(roles.order), policies)
        if roles.label is not None:
            found["label"] = labels(cell(roles.label.column), roles.label, policies)
        if roles.outcomes:
            each = [outcomes(cell(one.column), one, policies) for one in roles.outcomes]
            columns, usable = zip(*each, strict=True)
            found["outcomes"] = np.stack(columns, axis=1), np.logical_and.reduce(usable)
        if roles.part is not None:
            found["part"] = split_parts(cell(roles.part))
        return found

    def _check_types(self, cell: CellOf, columns: Mapping[str, pa.Array]) -> None:
        """Refuse a column of another type than it had in an earlier file."""
        for name, values in columns.items():
            first = self._types.get(name)
            if pa.types.is_null(values.type) or (first is not None and first[0] == values.type):
                continue
            given = cell(name)
            kind, row = given.values.type, int(given.rows[0])
            if first is None:
                self._types[name] = (values.type, kind, row)
            elif common_type({first[0], values.type}) is None:
                raise self._ledger.unlike(name, ("values", *first[1:]), (kind, row))

    def _none(self) -> Rows:
        return Rows(
            np.zeros(0, np.int64),
            {role: pa.nulls(0).dictionary_encode() for role in self._ids},
            {name: pa.nulls(0) for name in self._roles.converted},
        )


def _kept(values: Any, good: Mask) -> Any:
    """Return the values, (N, ...) of NumPy or (N,) of Arrow, where `good` (N,) holds."""
    if good.all():
        return values
    return values[good] if isinstance(values, np.ndarray) else values.filter(pa.array(good))
