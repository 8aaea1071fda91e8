"""Readers of the formats in which public data sets come; each yields tables, a block at a time.

A reader gives the columns that are wanted, under our names and with their types, so that no id is
guessed to be a number. Files may be packed with gzip.
"""

import ast
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys.core.errors import DataError, Row

_BLOCK_BYTES = 1 << 24
_LINES = 1 << 16
_SEPARATOR = b"\x1f"

Reader = Callable[[Path], Iterator[pa.Table]]
Value = Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """name: ours. type: of its values. value: what is made of what JSON holds."""

    name: str
    type: pa.DataType
    value: Value | None = None


@dataclass(frozen=True)
class Delimited:
    """Rows of fields. columns: raw name -> ours; names: of a file without a line of names.

    delimiter: one sign, or several, as the `::` of MovieLens. quoted: whether fields may be in
    double quotes.
    """

    columns: Mapping[str, Column]
    names: Sequence[str] = ()
    delimiter: str = ","
    encoding: str = "utf8"
    quoted: bool = True

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        """Yield the rows of a file.

        Raises:
            DataError: it is not as its authors wrote it.
        """
        several = len(self.delimiter) > 1
        parse = pa.csv.ParseOptions(
            delimiter=_SEPARATOR.decode() if several else self.delimiter,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted,
        )
        read = pa.csv.ReadOptions(
            column_names=list(self.names) or None,
            encoding=self.encoding,
            block_size=_BLOCK_BYTES,
            use_threads=False,
        )
        convert = pa.csv.ConvertOptions(
            include_columns=list(self.columns),
            column_types={raw: one.type for raw, one in self.columns.items()},
            null_values=["", "NULL", "\\N"],
            strings_can_be_null=True,
        )
        try:
            with _opened(path) as file:
                stream = _Replaced(file, self.delimiter.encode()) if several else file
                with pa.csv.open_csv(
                    pa.PythonFile(stream, mode="r"),
                    read_options=read,
                    parse_options=parse,
                    convert_options=convert,
                ) as reader:
                    for batch in reader:
                        names = [self.columns[raw].name for raw in batch.schema.names]
                        yield pa.Table.from_batches([batch]).rename_columns(names)
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, KeyError) as error:
            raise _unlike(path, error) from None


@dataclass(frozen=True)
class Lines:
    """One object a line: JSON, or (literal) what Python prints of a dictionary."""

    columns: Mapping[str, Column]
    literal: bool = False

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        """Yield the rows of a file.

        Raises:
            DataError: a line is no such object; it is named.
        """
        parse = ast.literal_eval if self.literal else json.loads
        kept: dict[str, list[Any]] = {one.name: [] for one in self.columns.values()}
        number = 0
        try:
            with _text(path, "utf-8") as file:
                for number, line in enumerate(file, start=1):
                    row = parse(line)
                    for raw, one in self.columns.items():
                        value = row.get(raw)
                        kept[one.name].append(one.value(value) if one.value else value)
                    if number % _LINES == 0:
                        yield self._table(kept)
                        kept = {name: [] for name in kept}
            yield self._table(kept)
        except (ValueError, SyntaxError, AttributeError, TypeError, OSError, EOFError) as error:
            raise DataError(
                f"not a line of {'Python' if self.literal else 'JSON'} as this data set has them "
                f"({str(error).splitlines()[0]})",
                rows=[Row(str(path), number)],
                remedy="download the file again",
            ) from None

    def _table(self, kept: Mapping[str, list[Any]]) -> pa.Table:
        types = {one.name: one.type for one in self.columns.values()}
        return pa.table({name: pa.array(values, types[name]) for name, values in kept.items()})


@dataclass(frozen=True)
class Parquet:
    """A Parquet file with the columns that are wanted; none named: all."""

    columns: Mapping[str, Column] = field(default_factory=dict)

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        """Yield the rows of a file."""
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(self.columns) or None):
                table = pa.Table.from_batches([batch])
                if self.columns:
                    table = table.rename_columns([one.name for one in self.columns.values()])
                yield table


@dataclass(frozen=True)
class Adjacency:
    """A line a user: its number, then those of its items (LightGCN's splits)."""

    part: str

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        """Yield the pairs of a file, with the part of the split."""
        users: list[int] = []
        items: list[int] = []
        with _text(path, "ascii") as file:
            for number, line in enumerate(file, start=1):
                try:
                    user, *own = (int(word) for word in line.split())
                except ValueError:
                    raise _unlike(path, f"line {number} is not a user and its items") from None
                users += [user] * len(own)
                items += own
        yield pa.table(
            {
                "user_id": pa.array(users, pa.int64()),
                "item_id": pa.array(items, pa.int64()),
                "split": pa.array([self.part] * len(users)),
            }
        )


@dataclass(frozen=True)
class Indexed:
    """libFM's format: a label, then one `number:1` for each of the `names`, in their order."""

    names: Sequence[str]
    part: str

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        """Yield the rows of a file, with the part of the split."""
        with _text(path, "ascii") as file:
            lines = file.read().split("\n")
        rows = [line.replace(":1", "").split() for line in lines if line]
        widths = {len(row) for row in rows}
        if widths != {len(self.names) + 1}:
            raise _unlike(path, f"a row has {len(self.names) + 1} fields, found {sorted(widths)}")
        values = np.array(rows, np.int64)
        label = np.maximum(values[:, 0], 0)  # -1 and 1
        columns = {name: values[:, at] for at, name in enumerate(self.names, start=1)}
        yield pa.table({"label": label, **columns, "split": [self.part] * len(rows)})


class _Replaced(io.RawIOBase):
    """A stream whose separators of several signs are one sign."""

    def __init__(self, file: IO[bytes], separator: bytes) -> None:
        self._file, self._separator, self._left = file, separator, b""
        self._ready = b""

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        while not self._ready:
            block = self._file.read(_BLOCK_BYTES)
            if not block:
                self._ready, self._left = self._left, b""
                break
            whole, newline, rest = (self._left + block).rpartition(b"\n")
            self._left = rest
            self._ready = (whole + newline).replace(self._separator, _SEPARATOR)
        cut = len(self._ready) if size < 0 else size
        out, self._ready = self._ready[:cut], self._ready[cut:]
        return out.replace(self._separator, _SEPARATOR)


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if _is_packed(path) else path.open("rb")  # type: ignore[return-value]


def _text(path: Path, encoding: str) -> IO[str]:
    if _is_packed(path):
        return gzip.open(path, "rt", encoding=encoding)
    return path.open(encoding=encoding)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _unlike(path: Path, error: object) -> DataError:
    return DataError(
        f"not as this data set has it ({str(error).splitlines()[0]})",
        file=path,
        remedy="name the folder with the files as they were downloaded and unpacked",
    )
