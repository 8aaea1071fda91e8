"""Rows of a click log as they stream by: conditions, label, weight, time and part checked.

What `recsys.features.tables.log` does for a log that fits into memory, for one that does not:
nothing is kept from one batch to the next. Ids are not checked, for a click log needs none.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.dataset.split import SplitConfig
from recsys.features.kinds.convert import columns_of, convert_columns, number
from recsys.features.kinds.feature import Feature
from recsys.features.schema import Schema
from recsys.features.tables.labels import labels
from recsys.features.tables.ledger import Cells, Ledger, Mask, cells
from recsys.features.tables.log import conditions_met, split_parts
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import check_times, latest_seconds, microseconds, raw_times

_PART_WORDS = ("training", "validation", "test")


@dataclass(frozen=True, eq=False)
class ClickRows:
    """The usable rows of one batch.

    rows (N,) int64, numbers over the source files; label, weight (N,) float32; time (N,) int64
    microseconds since 1970, where declared; part (N,) int8, where a column says it; columns:
    source column -> (N,) values as `recsys.features.kinds.convert.convert_columns` gives them.
    """

    rows: NDArray[np.int64]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    time: NDArray[np.int64] | None
    part: NDArray[np.int8] | None
    columns: Mapping[str, pa.Array]

    def __len__(self) -> int:
        return len(self.rows)


class ClickReader:
    """Streams the rows of `files`, as often as asked."""

    def __init__(
        self, files: TableFiles, schema: Schema, policies: Policies, split: SplitConfig
    ) -> None:
        self.files = files
        self._roles, self._policies, self._split = schema.interactions, policies, split
        self._latest = latest_seconds(policies)

    def batches(self, features: Sequence[Feature], ledger: Ledger) -> Generator[ClickRows]:
        """Yield the rows that count, with the columns of `features`; findings go to `ledger`."""
        for batch in self.files.batches(self._columns(columns_of(features))):
            rows = self._usable(batch, features, ledger)
            if rows is not None:
                yield rows

    def _columns(self, of_features: Sequence[str]) -> list[str]:
        roles = self._roles
        assert roles.label is not None
        wanted = [roles.label.column, roles.weight, self._split.column]
        wanted += [roles.time.column] if roles.time else []
        wanted += [condition.column for condition in roles.where]
        return list(dict.fromkeys(name for name in [*wanted, *of_features] if name is not None))

    def _usable(
        self,
        batch: Batch,
        features: Sequence[Feature],
        ledger: Ledger,
    ) -> ClickRows | None:
        chosen = conditions_met(batch.table, batch.rows, self._roles.where, ledger)
        table = batch.table if chosen.all() else batch.table.filter(pa.array(chosen))
        rows = batch.rows[chosen]
        if len(rows) == 0:
            return None

        def cell(name: str) -> Cells:
            return cells(table, name, rows, ledger)

        assert self._roles.label is not None
        label, good = labels(cell(self._roles.label.column), self._roles.label, self._policies)
        weight = np.ones(len(rows), np.float32)
        if self._roles.weight is not None:
            weight = self._weights(cell(self._roles.weight))
        part = None if self._split.column is None else split_parts(cell(self._split.column))
        time, on_time = self._times(cell, rows, ledger)
        good &= on_time
        columns = convert_columns(cell, features, self._policies)
        if not good.all():
            mask = pa.array(good)
            columns = {name: values.filter(mask) for name, values in columns.items()}
        return ClickRows(
            rows=rows[good],
            label=label[good],
            weight=weight[good],
            time=None if time is None else time[good],
            part=None if part is None else part[good],
            columns=columns,
        )

    def _weights(self, column: Cells) -> NDArray[np.float32]:
        values = np.asarray(number(column, self._policies).fill_null(np.nan))
        remedy = "fill it in the source, or leave such rows out with interactions.where"
        column.note(np.isnan(values), "the weight is null or not a number", remedy, show=False)
        column.note(values < 0, "the weight is negative", "a weight is zero or more")
        return values.astype(np.float32)

    def _times(
        self, cell: Callable[[str], Cells], rows: NDArray[np.int64], ledger: Ledger
    ) -> tuple[NDArray[np.int64] | None, Mask]:
        role = self._roles.time
        if role is None:
            return None, np.ones(len(rows), bool)
        raw = raw_times(cell(role.column), role.unit)
        good = check_times(
            raw,
            rows,
            column=role.column,
            unit=role.unit,
            ledger=ledger,
            policies=self._policies,
            latest=self._latest,
        )
        return microseconds(np.where(good, raw, 0), role.unit), good


class PartOrder:
    """Watches that no row of an earlier part is later than one of a later part."""

    def __init__(self, files: TableFiles, column: str) -> None:
        self._files, self._column = files, column
        self._latest: dict[int, tuple[int, int]] = {}
        self._earliest: dict[int, tuple[int, int]] = {}

    def add(self, part: NDArray[np.int8], time: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Add rows (N,) with their parts and times.

        Raises:
            DataError: a row, now or before, is out of order; both rows are named.
        """
        for which in np.unique(part).tolist():
            mine = part == which
            times, own = time[mine], rows[mine]
            late, early = int(times.argmax()), int(times.argmin())
            newest, oldest = (
                (int(times[late]), int(own[late])),
                (int(times[early]), int(own[early])),
            )
            self._latest[which] = max(self._latest.get(which, newest), newest)
            self._earliest[which] = min(self._earliest.get(which, oldest), oldest)
        for before, newest in self._latest.items():
            for after, oldest in self._earliest.items():
                if before < after and newest[0] > oldest[0]:
                    self._refuse(before, newest[1], after, oldest[1])

    def _refuse(self, before: int, late: int, after: int, early: int) -> None:
        first, second = self._files.places(np.array([late, early]))
        path, _, row = first.rpartition(":")
        raise DataError(
            f"{path} row {row}, column '{self._column}': this {_PART_WORDS[before]} row is later "
            f"than the {_PART_WORDS[after]} row {second}; sort the log by '{self._column}', or "
            "correct the split"
        )
