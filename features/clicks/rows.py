"""Rows of a click log as they stream by, and whether its parts follow each other in time.

Rows are read as those of a log in memory are (`recsys.features.tables.rows`); nothing is kept
from one batch to the next.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.errors import DataError
from recsys.features.dataset.split import SplitConfig
from recsys.features.kinds.feature import Feature
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Drop, Ledger
from recsys.features.tables.reading import Piece, TableFiles
from recsys.features.tables.rows import RowReader, RowRoles, Rows
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import latest_seconds

_PART_WORDS = ("training", "validation", "test")


Complete = Callable[[Generator[Rows], Sequence[Feature]], Generator[Rows]]
"""Adds the columns of features that are computed to batches of all rows that count."""


class ClickSource:
    """The rows of a click log, read as often as asked."""

    def __init__(
        self, files: TableFiles, schema: Schema, policies: Policies, split: SplitConfig
    ) -> None:
        self.files = files
        self.complete: Complete | None = None
        self.drops: Sequence[Drop] = ()  # rows of other tables that policies left out
        self._schema, self._policies, self._split = schema, policies, split
        self._latest = latest_seconds(policies)

    def reader(self, features: Sequence[Feature], ledger: Ledger) -> RowReader:
        """Return a reader of the roles and of `features`, whose findings go to `ledger`."""
        roles = RowRoles.of_log(self._schema, self._split.column, features)
        return RowReader(self.files, roles, self._policies, ledger, latest=self._latest)

    def cut(self, piece: Piece) -> "ClickSource":
        """Return the rows of one piece of the log, with the same clock."""
        found = copy(self)
        found.files = self.files.cut(piece)
        return found

    def batches(self, features: Sequence[Feature], ledger: Ledger) -> Generator[Rows]:
        """Yield the rows that count."""
        return self.completed(self.reader(features, ledger).batches(), features)

    def completed(self, batches: Generator[Rows], features: Sequence[Feature]) -> Generator[Rows]:
        """Yield batches of all rows that count with those of `features` that are computed."""
        return batches if self.complete is None else self.complete(batches, features)

    def times(self, rows: Rows) -> NDArray[np.int64] | None:
        """Return the times of rows, (N,) int64 microseconds, where the schema declares them."""
        return None if self._schema.interactions.time is None else rows.clock


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
        for which in distinct(part).tolist():
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

    def extremes(self) -> Iterator[tuple[int, int, int]]:
        """Yield part, time and row of the latest and the earliest row of each part."""
        for found in (self._latest, self._earliest):
            yield from ((part, *one) for part, one in found.items())

    def _refuse(self, before: int, late: int, after: int, early: int) -> None:
        first, second = self._files.places(np.array([late, early]))
        raise DataError(
            f"this {_PART_WORDS[before]} row is later than the {_PART_WORDS[after]} row {second}",
            column=self._column,
            rows=[first],
            remedy=f"sort the log by '{self._column}', or correct the split",
        )
