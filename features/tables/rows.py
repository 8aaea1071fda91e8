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
from recsys.features.schema import Schema
from recsys.features.table_roles import EventTypes, LabelColumn, Outcome, TimeColumn
from recsys.features.tables.condition import Condition
from recsys.features.tables.conditions import condition_holds, conditions_met
from recsys.features.tables.id_forms import IdForm
from recsys.features.tables.ids import IdCheck
from recsys.features.tables.ledger import Cells, Drop, Ledger, Mask, cells
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.sources import Policies, Rule
from recsys.features.tables.time_check import TimeCheck
from recsys.features.tables.values import (
    event_types,
    labels,
    orders,
    outcomes,
    split_parts,
    weights,
)

_LACKING = "the file has no such column, others of the table have; it is null there"
_NULL_THERE = Rule("missing column", choice="")
IdRole = Literal["user", "item", "session", "key", "link"]
"""Whose ids: of a log, the key of a table with one row a key, or what leads to another table."""
CellOf = Callable[[str], Cells]


@dataclass(frozen=True, kw_only=True)
class RowRoles:
    """What is read of a table: the columns that play a role, those of features, and others.

    id_forms: how the ids of a role are written, where the schema says it. plain: columns that are
    kept as they are where no feature reads them. called: column of a
    feature -> its name in the table, where it is another one.
    """

    ids: Mapping[IdRole, str] = field(default_factory=dict)
    id_forms: Mapping[IdRole, IdForm] = field(default_factory=dict)
    weight: str | None = None
    time: TimeColumn | None = None
    order: str | None = None
    label: LabelColumn | None = None
    outcomes: Sequence[Outcome] = ()
    part: str | None = None
    where: Sequence[Condition] = ()
    events: EventTypes | None = None
    targets: Condition | None = None
    features: Sequence[Feature] = ()
    plain: Sequence[str] = ()
    called: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, NumberText] = field(default_factory=dict)
    """Table of the schema -> how its text writes numbers; roles are of the interactions."""

    @classmethod
    def of_log(
        cls, schema: Schema, part: str | None, features: Sequence[Feature] | None = None
    ) -> "RowRoles":
        """Return every role that the schema gives a column of the interactions.

        Args:
            schema: of the log.
            part: the column that says train, validation or test, where there is one.
            features: of the interactions; None: all. Those that are computed are passed over.
        """
        roles = schema.interactions
        if features is None:
            features = schema.features_of("interactions")
        ids: dict[IdRole, str | None] = {
            "user": roles.user,
            "item": roles.item,
            "session": roles.session,
        }
        return cls(
            ids={role: column for role, column in ids.items() if column},
            id_forms=forms_of_roles(schema),
            weight=roles.weight,
            time=roles.time,
            order=roles.order,
            label=roles.label,
            outcomes=roles.outcomes,
            part=part,
            where=roles.where,
            events=roles.events,
            targets=roles.targets,
            features=[one for one in features if one.is_read],
            written=schema.number_texts,
        )

    @property
    def written_in(self) -> Mapping[str, NumberText]:
        """Column of a feature -> how its text writes numbers; the roles' is under ""."""
        found = {"": self.written.get("interactions", PLAIN)}
        for feature in self.features:
            own = self.written.get(feature.table, PLAIN)
            found |= dict.fromkeys(feature.columns, own)
        return found

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
        wanted += [role.column for role in (self.events, self.targets) if role is not None]
        return [name for name in wanted if name is not None]


def forms_of_roles(schema: Schema) -> dict[IdRole, IdForm]:
    """Return how the ids of users and items are written, where the schema says it."""
    forms: dict[IdRole, IdForm | None] = {"user": schema.ids.users, "item": schema.ids.items}
    return {role: form for role, form in forms.items() if form is not None}


@dataclass(frozen=True, eq=False)
class Rows:
    """The N usable rows of one batch; what has no role is None.

    rows (N,) int64: numbers over the files. ids: role -> (N,) dictionary of whole numbers (int64,
    uint64) or text (large_string), none null. clock (N,) int64: times in microseconds since
    1970 UTC, or order values. weight (N,) float32, zero or more, times that of
    the event's type. type (N,) int8, the place among `EventTypes.names`. target (N,) bool, whether
    it is asked for. label (N,) float32, 0 or 1.
    outcomes (N, K) float32, 0, 1 or NaN where unknown. part (N,) int8: 0 train, 1 validation, 2
    test. columns: source column -> (N,) values as
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
    type: NDArray[np.int8] | None = None
    target: NDArray[np.bool_] | None = None

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
        self._ids = {
            role: IdCheck(column, ledger, policies, roles.id_forms.get(role))
            for role, column in roles.ids.items()
        }
        self._time = None
        if roles.time is not None:
            self._time = TimeCheck(roles.time.column, roles.time.form, policies, latest)
        self._written = roles.written_in
        self._types: dict[str, tuple[pa.DataType, pa.DataType, int]] = {}
        self.num_read = 0
        """Rows of the files so far, those left out among them."""

    @property
    def checks(self) -> tuple[TimeCheck | None, Mapping[IdRole, IdCheck]]:
        """What watches the times, where there are some, and the ids of each role."""
        return self._time, self._ids

    def batches(self, *, finish: bool = True) -> Generator[Rows]:
        """Yield the usable rows of all files, those of a batch at a time, if there are some.

        finish: note what only all batches together show; not of a piece of a table.

        Raises:
            DataError: a column is missing, or wrong as a whole. Single bad rows are in the ledger
                once the last batch was asked for.
        """
        for batch in self._files.batches(self._roles.columns, some=self._roles.optional):
            rows = self.read(batch)
            if len(rows):
                yield rows
        if finish:
            self.finish()

    def finish(self) -> None:
        """Note what only all batches together show."""
        if self._time is not None:
            self._time.finish(self._ledger)

    def read(self, batch: Batch) -> Rows:
        """Return the usable rows of one batch.

        Raises:
            DataError: a column is wrong as a whole.
        """
        self.num_read += len(batch.rows)
        written, where = self._written, self._roles.where
        chosen = conditions_met(batch.table, batch.rows, where, self._ledger, written[""])
        table = batch.table if chosen.all() else batch.table.filter(pa.array(chosen))
        rows = batch.rows[chosen]
        if len(rows) == 0:
            return self._none()

        for name in batch.lacking:
            self._ledger.note(name, _LACKING, rows, rule=_NULL_THERE)

        def cell(name: str) -> Cells:
            called = self._roles.called.get(name, name)
            return cells(table, called, rows, self._ledger, written.get(name, written[""]))

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
        if self.num_read == 0 and not self._files.is_piece:
            raise DataError(f"the {self._files.table} table is empty", file=self._files.paths[0])

    def refuse_none_left(self, num_left: int, drops: Sequence[Drop]) -> None:
        """Refuse a log of whose rows none is left.

        Raises:
            DataError: so it is; `drops` say why.
        """
        if num_left == 0 and not self._files.is_piece:
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
        if roles.events is not None:
            types, named = event_types(cell(roles.events.column), roles.events, policies)
            found["type"] = types, named
            found["weight"] = _weighted(found.get("weight"), types, roles.events)
        if roles.time is not None and self._time is not None:
            found["clock"] = self._time.check(cell(roles.time.column))
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
        return found | self._targets(cell)

    def _targets(self, cell: CellOf) -> dict[str, tuple[NDArray[Any], Mask]]:
        """Return which rows are asked for, where that is declared; as `_values` does."""
        targets = self._roles.targets
        if targets is None:
            return {}
        holds = condition_holds(cell(targets.column), targets)
        return {"target": (holds, np.ones(len(holds), bool))}

    def _check_types(self, cell: CellOf, columns: Mapping[str, pa.Array]) -> None:
        """Refuse a column of another type than it had in an earlier file."""
        for name, values in columns.items():
            first = self._types.get(name)
            if pa.types.is_null(values.type) or (first is not None and first[0] == values.type):
                continue
            given = cell(name)
            self.check_type(name, values.type, given.values.type, int(given.rows[0]))

    @property
    def types(self) -> Mapping[str, tuple[pa.DataType, pa.DataType, int]]:
        """Column -> its type once converted, its type in the file, and the first row with these."""
        return self._types

    def check_type(self, name: str, read: pa.DataType, given: pa.DataType, row: int) -> None:
        """Refuse a column of another type than it had in earlier rows; else as `types` has it.

        Raises:
            DataError: so it is.
        """
        first = self._types.setdefault(name, (read, given, row))
        if common_type({first[0], read}) is None:
            raise self._ledger.unlike(name, ("values", *first[1:]), (given, row))

    def _none(self) -> Rows:
        return Rows(
            np.zeros(0, np.int64),
            {role: pa.nulls(0).dictionary_encode() for role in self._ids},
            {name: pa.nulls(0) for name in self._roles.converted},
        )


def _weighted(
    given: tuple[NDArray[Any], Mask] | None, types: NDArray[np.int8], role: EventTypes
) -> tuple[NDArray[Any], Mask]:
    """Return the weights of rows times those of their types, (N,), 1 for what takes a row back."""
    of_types = np.array([*role.weights.values(), *(1.0 for _ in role.undo)], np.float32)[types]
    if given is None:
        return of_types, np.ones(len(types), bool)
    with np.errstate(over="ignore"):  # what float32 does not hold is refused with the whole log
        return given[0] * of_types, given[1]


def _kept(values: Any, good: Mask) -> Any:
    """Return the values, (N, ...) of NumPy or (N,) of Arrow, where `good` (N,) holds."""
    if good.all():
        return values
    return values[good] if isinstance(values, np.ndarray) else values.filter(pa.array(good))
