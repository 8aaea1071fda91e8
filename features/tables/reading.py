"""Tables on disk as a stream of batches, each row known by its file and its number.

A path is a file, a glob, or a folder (flat or hive-partitioned: `country=DE/part-0.parquet`),
Parquet or CSV, never both. Only the columns asked for are read, a batch at a time, so a table
may be larger than memory. CSV comes as text, as do the values in partition folders: what a
column means is decided by its role and over the whole table, never from its first block.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.core.errors import DataError, NotFoundError, Row
from recsys.core.strict import nearest

_BATCH_ROWS = 1 << 18
_BLOCK_BYTES = 1 << 24
_FORMATS = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.bz2"),
}
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_NOTHING: Mapping[str, str] = {}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How files of that encoding begin."""


_BAD_CSV_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)")
# Ctrl-C is Python's business: Arrow's own handler turns it into errors of whatever it was doing.
pa.enable_signal_handlers(False)


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of one file; rows (N,) int64 numbers them over the whole table from 0."""

    table: pa.Table
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class _File:
    """One file: its own columns, and those that its folders' names give."""

    path: Path
    columns: tuple[str, ...]
    partitions: Mapping[str, str | None]
    delimiter: str = ","


class TableFiles:
    """An opened table. `table` is its role in messages; `format` is "parquet" or "csv"."""

    def __init__(self, table: str, format_: str, files: Sequence[_File]) -> None:
        self.table = table
        self.format = format_
        self._files = tuple(files)
        self._starts = [0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files in reading order."""
        return tuple(file.path for file in self._files)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the first file; every file must have those that are read."""
        first = self._files[0]
        return (*first.columns, *(name for name in first.partitions if name not in first.columns))

    def partial(self) -> dict[str, Path]:
        """Return the columns that some files have and others lack, with the first that lacks it."""
        names = {name for file in self._files for name in (*file.columns, *file.partitions)}
        lacking = {
            name: [f.path for f in self._files if name not in (*f.columns, *f.partitions)]
            for name in names
        }
        return {name: paths[0] for name, paths in sorted(lacking.items()) if paths}

    def is_untyped(self, column: str) -> bool:
        """Whether values come as text whose type is still to be decided."""
        return self.format == "csv" or column not in self._files[0].columns

    def require(self, columns: Iterable[str], remedies: Mapping[str, str] = _NOTHING) -> None:
        """Check that every file has `columns`.

        Args:
            columns: names of columns.
            remedies: column -> what else may be done where it is missing.

        Raises:
            DataError: one is missing; the nearest column is named.
        """
        for column in columns:
            for file in self._files:
                have = [*file.columns, *file.partitions]
                if column not in have:
                    raise DataError(
                        f"the {self.table} table has no such column{nearest(column, have)}; "
                        f"its columns are {', '.join(have)}",
                        file=file.path,
                        column=column,
                        remedy=remedies.get(column, ""),
                    )

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yield the rows of all files in order, with `columns` alone.

        Raises:
            DataError: a file cannot be parsed; the message names it and, where known, the row.
        """
        self.require(columns)
        self._starts = []
        start = 0
        for file in self._files:
            self._starts.append(start)
            own = [name for name in columns if name in file.columns]
            for part in self._read(file, own):
                table = _with_partitions(part, file, columns)
                yield Batch(table, np.arange(start, start + len(table)))
                start += len(table)

    def places(self, rows: NDArray[np.int64]) -> tuple[Row, ...]:
        """Return file and number of rows that `batches` numbered over the whole table."""
        at = np.searchsorted(self._starts, rows, side="right") - 1
        return tuple(
            Row(str(self._files[i].path), int(row - self._starts[i] + 1))
            for i, row in zip(at, rows, strict=True)
        )

    def _read(self, file: _File, columns: list[str]) -> Iterator[pa.Table]:
        if self.format == "csv":
            yield from _read_csv(file, columns or list(file.columns[:1]))
        else:
            yield from _read_parquet(file, columns)


def open_table(given: str | Path, table: str) -> TableFiles:
    """Find the files of `given` (file, glob or folder) and read their headers.

    Args:
        given: what the configuration says.
        table: role or name of the table, for messages.

    Raises:
        NotFoundError: nothing is there.
        DataError: formats are mixed, or a file is not what its name says.
    """
    root, paths = _find(str(given), table)
    formats = {_format(path): path for path in reversed(paths)}
    if len(formats) > 1:
        names = " and ".join(f"{path} ({format_})" for format_, path in sorted(formats.items()))
        raise DataError(
            f"the {table} table mixes formats, {names}",
            file=given,
            remedy="keep one format in a table",
        )
    (format_,) = formats
    header = _csv_file if format_ == "csv" else _parquet_file
    return TableFiles(table, format_, [header(path, _partitions(path, root)) for path in paths])


def table_at(path: Path, table: str, columns: Sequence[str]) -> TableFiles:
    """Return the files that messages name for one Parquet file, or for rows without a file.

    Raises:
        DataError: two columns have one name.
    """
    _refuse_twins(path, columns)
    return TableFiles(table, "parquet", [_File(path, tuple(columns), {})])


def fingerprint(tables: Iterable[TableFiles]) -> str:
    """Return the sha256 (hex) of the bytes of all files, table by table in reading order."""
    digest = hashlib.sha256()
    for files in tables:
        for path in files.paths:
            # Lengths distinguish "ab" + "c" from "a" + "bc".
            digest.update(f"{files.table} {path.stat().st_size}\n".encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _find(given: str, table: str) -> tuple[Path, list[Path]]:
    """Return the folder that of the path, and its files in order.

    Not by `pyarrow.dataset`: it knows no globs, leaves out folders such as `_day=1` without a word,
    and makes a number of a partition's "007".
    """
    path = Path(given)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, found = path, sorted(path.rglob("*"))
    elif has_magic(given):
        fixed = next(parent for parent in path.parents if not has_magic(str(parent)))
        root, found = fixed, sorted(Path(name) for name in glob(given, recursive=True))
    else:
        siblings = [entry.name for entry in path.parent.glob("*")] if path.parent.is_dir() else []
        there = path.parent.is_dir()
        hint = nearest(path.name, siblings) or ("" if there else " and neither does its folder")
        # Tables of `init` have no role yet and are called by their files.
        what = "it" if table == path.name else f"this path of the {table} table"
        raise NotFoundError(f"{given}: {what} does not exist{hint}")
    files = [file for file in found if file.is_file() and not _is_hidden(file.relative_to(root))]
    if not files:
        what = "folder holds no data file" if path.is_dir() else "glob matches no file"
        raise NotFoundError(f"{given}: the {table} table's {what}; correct the path under 'data'")
    return root, files


def _is_hidden(path: Path) -> bool:
    """Spark's `_SUCCESS`, checksums and temporary folders are no data."""
    return any(part.startswith(("_", ".")) and "=" not in part for part in path.parts)


def _format(path: Path) -> str:
    for format_, endings in _FORMATS.items():
        if path.name.lower().endswith(endings):
            return format_
    with path.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return "parquet"
    raise DataError(
        "neither Parquet nor CSV",
        file=path,
        remedy="name it *.parquet or *.csv, or use a glob such as "
        f"{path.parent}/*.parquet that leaves it out",
    )


def _partitions(path: Path, root: Path) -> dict[str, str | None]:
    pairs = [part.split("=", 1) for part in path.relative_to(root).parts[:-1] if "=" in part]
    return {name: None if raw == _NULL_PARTITION else unquote(raw) for name, raw in pairs}


def _with_partitions(part: pa.Table, file: _File, columns: Sequence[str]) -> pa.Table:
    arrays = []
    for name in columns:
        if name in file.columns:
            arrays.append(part.column(name))
        else:
            value = pa.array([file.partitions[name]], pa.string())
            arrays.append(value.take(pa.array(np.zeros(len(part), np.int64))))
    return pa.table(arrays, names=list(columns))


def _refuse_twins(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"two columns are named '{twice[0]}'", file=path, remedy="rename one of them"
        )


def _parquet_file(path: Path, partitions: dict[str, str | None]) -> _File:
    try:
        with pq.ParquetFile(path) as opened:
            names = tuple(opened.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from None
    _refuse_twins(path, names)
    return _File(path, names, partitions)


def _read_parquet(file: _File, columns: list[str]) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True) as opened:
            for batch in opened.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(file.path, error) from None


def _broken_parquet(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(
        f"not a readable Parquet file ({reason})", file=path, remedy="write it again or remove it"
    )


def _csv_file(path: Path, partitions: dict[str, str | None]) -> _File:
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(1 << 20)
    try:
        text = head.decode("utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        # A character cut at the end of the block is no fault; anything before it is.
        if error.start < len(head) - 4 or len(head) < 1 << 20:
            raise _not_utf8(path) from None
        text = head[: error.start].decode("utf-8-sig")
    first = text.split("\n", 1)[0]
    if not first.strip():
        raise DataError("empty CSV file", file=path, remedy="it needs a first line of column names")
    delimiter = next((sign for sign in ",;\t|" if sign in first), ",")
    try:
        names = [
            name.strip("\r\n") for name in next(csv.reader(io.StringIO(text), delimiter=delimiter))
        ]
    except csv.Error as error:
        raise DataError(
            f"the first line names no columns ({error})",
            file=path,
            remedy="write a text file of one row a line, in UTF-8",
        ) from None
    _refuse_twins(path, names)
    return _File(path, tuple(names), partitions, delimiter)


def _read_csv(file: _File, columns: list[str]) -> Iterator[pa.Table]:
    # No handler for bad rows: Arrow's threads would hold Python code when the process ends.
    parse = pa.csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True)
    convert = pa.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    # Without threads the parser knows the number of a row that it refuses.
    read = pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    try:
        with (
            pa.input_stream(str(file.path), compression="detect") as stream,
            pa.csv.open_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            ) as reader,
        ):
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _broken_csv(file, error) from None


def _broken_csv(file: _File, error: Exception) -> DataError:
    row = _BAD_CSV_ROW.search(str(error))
    if row:
        number, expected, actual, text = row.groups()
        return DataError(
            f"{actual} fields where the first line names {expected}: {text!r}",
            rows=[Row(str(file.path), int(number) - 1)],
            remedy=f"quote fields that hold '{file.delimiter}'",
        )
    if "UTF8" in str(error):
        return _not_utf8(file.path)
    return DataError(f"not a readable CSV file ({str(error).splitlines()[0]})", file=file.path)


def _not_utf8(path: Path) -> DataError:
    with pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                shown = line[max(0, error.start - 20) : error.start + 20]
                given = "utf-16" if number == 1 and line.startswith(_UTF_16) else "latin1"
                return DataError(
                    f"line {number} is not UTF-8 at {shown!r}",
                    file=path,
                    remedy=f"save the file as UTF-8 (iconv -f {given} -t utf-8)",
                )
    return DataError("not UTF-8", file=path, remedy="save the file as UTF-8")
