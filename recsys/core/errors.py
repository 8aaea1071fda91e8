"""The errors a user can act on, each with the exit code the command line answers with.

An error carries what it knows as fields; its message is made of them, once. Who wants to know
where something is wrong reads the fields, never the message.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from recsys.core.visible import on_one_line, visible


class Row(NamedTuple):
    """A row of a file, counted from 1; without a file one of the given table."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.file else f"row {self.number}"


class UserError(ValueError):
    """Something the caller can put right; the message says what came and what to do.

    `exit_code` is that of the command line: 2 usage or configuration, 3 data, 4 not found,
    5 integrity, 6 not promoted, as it is not better, 12 training diverged, 69 a store does not
    answer, 75 not delivered, or a worker is gone.
    """

    exit_code = 2

    def __init__(self, *args: object) -> None:
        """Take the message; what a terminal would obey, or nobody sees, is escaped in it."""
        super().__init__(*(visible(one) if isinstance(one, str) else one for one in args))

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data: `error`, its class, and `message`."""
        return {"error": type(self).__name__, "message": str(self)}


class ArgumentError(UserError, TypeError):
    """An argument of a Python function has the wrong type, or does not exist."""


class Problem(NamedTuple):
    """What is wrong with a configuration: in which file, at which key ("a.b"), described.

    kind: pydantic's name of it, as in "int_type"; "" where there is none.
    """

    file: str
    key: str
    text: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


class ConfigError(UserError):
    """A configuration, a schema or an option is wrong.

    problems: where a file was read against what it may hold, each on a line of the message.
    """

    def __init__(self, message: str = "", *, problems: Sequence[Problem] = ()) -> None:
        """Take the message, or make it of the problems."""
        self.problems = tuple(problems)
        super().__init__(message or "\n".join(map(str, self.problems)))

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        known = {"problems": [one._asdict() for one in self.problems]} if self.problems else {}
        return super().fields() | known


class DataError(UserError):
    """A table or a value in it is wrong; the message names file, column, rows and remedy.

    Attributes:
        reason: what is wrong.
        file: the path of the file, or what the table is called; "" where no table is concerned.
        column: its name; "" where it is no single one.
        rows: the first few.
        num_rows: how many there are in all.
        value: the first of the values, as text.
        remedy: what to do about it.
        rule: the key of the policy that makes it an error, as in "policies.bad_ids"; "" where no
            policy allows it.
    """

    exit_code = 3

    def __init__(
        self,
        reason: str,
        *,
        file: object = "",
        column: str = "",
        rows: Sequence[Row] = (),
        num_rows: int | None = None,
        value: str = "",
        remedy: str = "",
        rule: str = "",
    ) -> None:
        """Make the message: place, reason, value, remedy."""
        self.reason, self.column, self.value = reason, column, value
        self.rows = tuple(rows)
        self.num_rows = len(self.rows) if num_rows is None else num_rows
        self.file = str(file) or (self.rows[0].file if self.rows else "")
        self.remedy, self.rule = remedy, rule
        place = ", ".join(part for part in (self._where(), column and f"column '{column}'") if part)
        what = f"{place}: {reason}" if place else reason
        what += (f", {value}" if value else "") + (f"; {remedy}" if remedy else "")
        super().__init__(on_one_line(what))

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data; rows are [file, number from 1]."""
        known = {name: value for name, value in vars(self).items() if value}
        return super().fields() | known | {"rows": [list(row) for row in self.rows]}

    def within(self, file: object, column: str = "", numbers: Sequence[int] = ()) -> "DataError":
        """Return the same error as one of a file, of whose rows some were looked at by themselves.

        Args:
            file: where they are.
            column: its name there, where it is another one.
            numbers: of the rows that were looked at, counted from 1 in the file. Without them
                the error names no row.
        """
        rows = [Row(str(file), int(numbers[row.number - 1])) for row in self.rows if len(numbers)]
        return DataError(
            self.reason,
            file=file,
            column=column or self.column,
            rows=rows,
            num_rows=self.num_rows if rows else None,
            value=self.value,
            remedy=self.remedy,
            rule=self.rule,
        )

    def calling(self, names: Mapping[str, str]) -> "DataError":
        """Return the same error with files called by other names, file -> name."""
        rows = [Row(names.get(row.file, row.file), row.number) for row in self.rows]
        return DataError(
            self.reason,
            file=names.get(self.file, self.file),
            column=self.column,
            rows=rows,
            num_rows=self.num_rows,
            value=self.value,
            remedy=self.remedy,
            rule=self.rule,
        )

    def _where(self) -> str:
        """Return "a.csv rows 3, 7; b.csv row 1 (12 rows in all)"."""
        parts = []
        for file, group in groupby(self.rows, key=lambda row: row.file):
            numbers = [f"{row.number}" for row in group]
            word = "row" if len(numbers) == 1 else "rows"
            parts.append(" ".join(part for part in (file, word, ", ".join(numbers)) if part))
        more = f" ({self.num_rows:,} rows in all)" if self.num_rows > len(self.rows) > 0 else ""
        return "; ".join(parts) + more or self.file


class NotFoundError(UserError):
    """A file, a bundle, a run or a registered version does not exist."""

    exit_code = 4


class IntegrityError(UserError):
    """Bytes are not those that were written, or two artefacts do not belong together."""

    exit_code = 5


class StoreError(UserError):
    """A store of files did not answer; the same may well succeed later."""

    exit_code = 69


class NotBetterError(UserError):
    """A version that was to be promoted if it is better is not.

    Attributes:
        metric: by which it was to be better.
        gain: by how much it is better than the version that holds the alias; below 0: worse.
        low, high: the ends of the 95 % interval; None: nothing was measured.
        margin: how much better it was to be.
    """

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        metric: str,
        gain: float,
        low: float | None = None,
        high: float | None = None,
        margin: float = 0.0,
    ) -> None:
        """Take the message and what was measured."""
        self.metric, self.gain, self.low, self.high = metric, gain, low, high
        self.margin = margin
        super().__init__(message)

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        return super().fields() | vars(self)


class WorkerError(UserError):
    """A process that worked on a job with others is gone; what is written stays."""

    exit_code = 75


class NotDeliveredError(UserError):
    """A store did not take what a run had for it; the same call later sends the rest.

    Attributes:
        sent: records that arrived.
        left: records that did not.
    """

    exit_code = 75

    def __init__(self, message: str, *, sent: int, left: int) -> None:
        """Take the message and the two numbers."""
        self.sent, self.left = sent, left
        super().__init__(message)

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        return super().fields() | vars(self)


class NumericalError(UserError):
    """Training met a number that is not finite; the last checkpoint is kept."""

    exit_code = 12
