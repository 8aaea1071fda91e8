"""What was wrong in a table: one clear error, or a counted drop where a policy says so.

A `Ledger` collects findings while a table streams by, so that an error says how many rows are
concerned; `settle` raises the first that no policy allows and returns the others as `Drop`s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError, Row
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.plain_values import plain
from recsys.features.tables.reading import TableFiles
from recsys.features.tables.sources import Rule

Mask = NDArray[np.bool_]
_EXAMPLES = 5
_NO_RULE = Rule()


@dataclass(frozen=True)
class Drop:
    """One reason for which rows left the data, or values were changed, by policy.

    rule, choice: as `Rule` has them. rows: how many. examples: the first few.
    """

    table: str
    column: str
    reason: str
    rule: str
    choice: str
    rows: int
    examples: tuple[Row, ...]

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Drop":
        """Read what `dataclasses.asdict` and JSON made of one."""
        return cls(**{**raw, "examples": tuple(Row(*row) for row in raw["examples"])})

    @property
    def policy(self) -> str:
        """The rule and what it says, for people: "bad_ids: drop"."""
        return str(Rule(self.rule, self.choice))

    def __str__(self) -> str:
        return (
            f"{self.policy}: {self.rows:,} rows of {self.table}, column '{self.column}': "
            f"{self.reason} (first at {self.examples[0]})"
        )


@dataclass
class Tally:
    """Rows with the same fault: how many, the first few, and the value of the first."""

    value: str = ""
    examples: list[int] = field(default_factory=list)
    count: int = 0
    last: int = -1

    def add(self, rows: NDArray[np.int64]) -> None:
        """Count `rows` (M,), ascending; those up to the last one counted are known already."""
        rows = rows[rows > self.last]
        if len(rows):
            rows = rows[np.append(True, rows[1:] != rows[:-1])]  # of steps a request has several
            self.last = int(rows[-1])
            self.examples += rows[: max(0, _EXAMPLES - len(self.examples))].tolist()
            self.count += len(rows)

    def join(self, other: "Tally") -> None:
        """Count what another one counted of later rows."""
        if not self.count:
            self.value = other.value
        self.examples += other.examples[: max(0, _EXAMPLES - len(self.examples))]
        self.count, self.last = self.count + other.count, other.last


@dataclass(frozen=True)
class Finding:
    """A fault, what to do about it, whether it is allowed, and the rows that have it."""

    remedy: str
    rule: Rule
    tally: Tally


Findings = Mapping[tuple[str, str], Finding]
"""By column and reason, in the order in which they were met."""


class Ledger:
    """Findings in one table, in the order in which they were met.

    Where `trained`, the policies are those of a model that is there already: no message says to
    set one.
    """

    def __init__(self, files: TableFiles, *, trained: bool = False) -> None:
        self.files = files
        self.trained = trained
        self._findings: dict[tuple[str, str], Finding] = {}

    def note(
        self,
        column: str,
        reason: str,
        rows: NDArray[np.int64],
        *,
        remedy: str = "",
        rule: Rule = _NO_RULE,
        value: str = "",
    ) -> None:
        """Add `rows` (M,) to what is wrong with `column`.

        Args:
            column: its name.
            reason: what is wrong.
            rows: numbers over the files.
            remedy: what to do about it in the source.
            rule: whether it is allowed.
            value: the first of the values.
        """
        if len(rows) == 0:
            return
        fresh = Finding(remedy, rule, Tally(value))
        # Two readers of one column find the same; a table streams by in ascending rows.
        self._findings.setdefault((column, reason), fresh).tally.add(rows)

    def note_tally(
        self,
        column: str,
        reason: str,
        tally: Tally,
        *,
        remedy: str = "",
        rule: Rule = _NO_RULE,
    ) -> None:
        """Add what was counted elsewhere, before its reason was known; else as `note`."""
        if tally.count:
            self._findings[column, reason] = Finding(remedy, rule, tally)

    def found(self) -> Findings:
        """Return what was found."""
        return dict(self._findings)

    def join(self, found: Findings) -> None:
        """Add what another ledger found in later rows of the same table."""
        for key, one in found.items():
            if key in self._findings:
                self._findings[key].tally.join(one.tally)
            else:
                self._findings[key] = one

    def unlike(
        self, column: str, first: tuple[str, pa.DataType, int], other: tuple[pa.DataType, int]
    ) -> DataError:
        """Return the error for a column of two types.

        Args:
            column: its name.
            first: what its values are called, their type in one file, and a row of it.
            other: the type in another file, and a row of it.
        """
        what, kind, row = first
        return DataError(
            f"{what} are {kind} in one file and {other[0]} in another",
            column=column,
            rows=self.files.places(np.array([row, other[1]])),
            remedy="cast them to one type",
        )

    def check(self) -> None:
        """Keep what policies forgave for `settle`.

        Raises:
            DataError: the first finding that no policy allows.
        """
        for (column, reason), finding in self._findings.items():
            if finding.rule.forgives:
                continue
            tally, rule = finding.tally, Rule() if self.trained else finding.rule
            raise DataError(
                reason,
                column=column,
                rows=self.files.places(np.array(tally.examples, np.int64)),
                num_rows=tally.count,
                value=tally.value,
                remedy=", or ".join(part for part in (finding.remedy, rule.option) if part),
                rule=rule.key,
            )

    def settle(self) -> list[Drop]:
        """Return what policies forgave, and forget it.

        Raises:
            DataError: the first finding that no policy allows.
        """
        self.check()
        drops = []
        for (column, reason), finding in self._findings.items():
            tally, rule = finding.tally, finding.rule
            places = self.files.places(np.array(tally.examples, np.int64))
            table = self.files.table
            drops.append(Drop(table, column, reason, rule.key, rule.choice, tally.count, places))
        self._findings.clear()
        return drops


@dataclass(frozen=True)
class Cells:
    """One column of one batch: values (N,), their row numbers, and where findings go."""

    column: str
    values: pa.Array
    rows: NDArray[np.int64]
    ledger: Ledger
    untyped: bool = False
    """The values are text from a CSV file: their type is ours to decide."""
    written: NumberText = PLAIN
    """How text writes numbers."""

    def note(
        self,
        bad: Mask,
        reason: str,
        remedy: str,
        *,
        rule: Rule = _NO_RULE,
        show: bool = True,
    ) -> None:
        """Add the rows where `bad` (N,) holds; else as `Ledger.note`. Show: the first value."""
        at = np.flatnonzero(bad)
        if len(at):
            value = _shown(self.values[int(at[0])].as_py()) if show else ""
            self.ledger.note(
                self.column,
                reason,
                self.rows[at],
                remedy=remedy,
                rule=rule,
                value=value,
            )

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """Raise at once for a column that is wrong as a whole; the first value is shown.

        Of what a trained model is given no declaration can be changed any more.
        """
        if self.ledger.trained:
            remedy = "give such values as the model was trained on"
        valid = np.flatnonzero(np.asarray(self.values.is_valid()))
        first = int(valid[0]) if len(valid) else 0
        rows = self.ledger.files.places(self.rows[first : first + 1])
        raise DataError(
            reason,
            file="" if rows else self.ledger.files.table,
            column=self.column,
            rows=rows,
            value=_shown(self.values[first].as_py()) if len(valid) else "",
            remedy=remedy,
        )


def cells(
    table: pa.Table,
    column: str,
    rows: NDArray[np.int64],
    ledger: Ledger,
    written: NumberText = PLAIN,
) -> Cells:
    """Return one column of a batch as `Cells`, its values `plain`."""
    chunked = table.column(column)
    values = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, values.type)
    values = plain(values)
    return Cells(column, values, rows, ledger, ledger.files.is_untyped(column), written)


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is any list."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def mask_of(condition: Any) -> Mask:
    """Return an Arrow boolean array as (N,) bool, null as False."""
    if isinstance(condition, pa.ChunkedArray):
        condition = condition.combine_chunks()
    return np.asarray(condition.fill_null(False).to_numpy(zero_copy_only=False), bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
