"""Tables on disk as a stream of batches, each row known by its file and its number.

A path is a file, a glob, or a folder (flat or hive-partitioned: `country=DE/part-0.parquet`),
Parquet or CSV, never both; or the folder of a Delta table. Only the columns asked for are read, a
batch at a time, so a table may be larger than memory. CSV comes as text, as do the values in
partition folders: what a column means is decided by its role and over the whole table, never from
its first block.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError, Row
from recsys.core.remote.path import RemotePath
from recsys.core.strict import nearest
from recsys.features.tables.file_formats import FORMATS, format_of
from recsys.features.tables.lakes import Lake, lake_at, refuse_in_lake
from recsys.features.tables.paths import find_files, literal, partitions_of
from recsys.features.tables.plain_values import plain_table
from recsys.features.tables.remote_files import find_remote
from recsys.features.tables.sources import Logs, LogSource, Source, TableSource, sources_of
from recsys.features.tables.table_file import File, as_in_log, refuse_twins

_NOTHING: Mapping[str, str] = {}
# Ctrl-C is Python's business: Arrow's own handler turns it into errors of whatever it was doing.
pa.enable_signal_handlers(False)


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of one file.

    rows (N,) int64 numbers them over the whole table from 0. lacking: columns that other files have
    and this one has not; they are null.
    """

    table: pa.Table
    rows: NDArray[np.int64]
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file of a table, which can be read without the others.

    file: its number. groups: of its rows (`File.groups`). first: the number of the first row over
    the whole table. starts: the same of the first row of each file.
    """

    file: int
    groups: tuple[int, ...] | None
    first: int
    starts: tuple[int, ...]


class TableFiles:
    """An opened table. `table` is its role in messages; `format` is "parquet" or "csv".

    version: which one of a table that keeps several, as in "delta 7"; else "".
    """

    def __init__(
        self, table: str, format_: str, files: Sequence[File], *, version: str = ""
    ) -> None:
        self.table = table
        self.version = version
        self.format = format_
        self._files = tuple(files)
        self.assumed_encoding = ""
        """What `init` found that the files are in, where that is no certainty."""
        self.is_piece = False
        """Whether this is a piece of a table, which may have no rows, or none that is left."""
        self._starts = [0]
        self._end = 0
        self._piece: Piece | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files in reading order."""
        return tuple(file.path for file in self._files)

    @property
    def starts(self) -> tuple[int, ...]:
        """The number of the first row of each file that `batches` has come to."""
        return tuple(self._starts)

    @property
    def said(self) -> tuple[str, ...]:
        """What was recognised of the files that a person may want to know."""
        found = {
            one: file.path.name for file in reversed(self._files) for one in reversed(file.said)
        }
        said = [f"{name}: {one}" for one, name in reversed(found.items())]
        if self.assumed_encoding:
            said.insert(0, f"no UTF-8; read as {self.assumed_encoding}, and declared so")
        return tuple(said)

    @property
    def declared(self) -> tuple[str, ...]:
        """What is declared of how the files are read."""
        each = [file.declared for file in self._files]
        return (
            each[0] if len(set(each)) == 1 else tuple(one for some in each for one in (*some, ""))
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of all files, those of the first one first, then those of folders' names."""
        own = [name for file in self._files for name in file.names]
        folders = [name for file in self._files for name in file.partitions]
        return tuple(dict.fromkeys([*own, *folders]))

    def partial(self) -> dict[str, Path]:
        """Return the columns that some files have and others lack, with the first that lacks it."""
        names = {name for file in self._files for name in (*file.names, *file.partitions)}
        lacking = {
            name: [f.path for f in self._files if name not in (*f.names, *f.partitions)]
            for name in names
        }
        return {name: paths[0] for name, paths in sorted(lacking.items()) if paths}

    def is_untyped(self, column: str) -> bool:
        """Whether values come as text whose type is still to be decided."""
        return FORMATS[self.format].untyped or not any(column in file.names for file in self._files)

    def require(
        self,
        columns: Iterable[str],
        remedies: Mapping[str, str] = _NOTHING,
        *,
        some: Collection[str] = (),
    ) -> None:
        """Check that every file has `columns`.

        Args:
            columns: names of columns.
            remedies: column -> what else may be done where it is missing.
            some: those of `columns` that some files may lack, where they are null.

        Raises:
            DataError: one is missing; the nearest column is named. Or a file has it in other
                letters, as in "Brand" for "brand".
        """
        for column in columns:
            there = any(column in (*file.names, *file.partitions) for file in self._files)
            for file in self._files:
                have = [*file.names, *file.partitions]
                if column not in have and not (
                    there and column in some and column.lower() not in map(str.lower, have)
                ):
                    raise DataError(
                        f"the {self.table} table has no such column{nearest(column, have)}; "
                        f"its columns are {', '.join(have)}",
                        file=file.path,
                        column=column,
                        remedy=remedies.get(column, ""),
                    )

    def batches(self, columns: Sequence[str], *, some: Collection[str] = ()) -> Iterator[Batch]:
        """Yield the rows of all files in order, with `columns` alone.

        `some`: those of `columns` that some files may lack; their rows are null there.

        Raises:
            DataError: a file cannot be parsed; the message names it and, where known, the row.
        """
        self.require(columns, some=some)
        for file, start in self._to_read():
            own = [file.own(name) for name in columns if name in file.names]
            for part in FORMATS[self.format].read(file, own):
                table = plain_table(_with_partitions(part, file, columns))
                lacking = tuple(
                    name for name in columns if name not in (*file.names, *file.partitions)
                )
                yield Batch(table, np.arange(start, start + len(table)), lacking)
                start += len(table)
            self._end = start

    def _to_read(self) -> Iterator[tuple[File, int]]:
        """Yield each file with the number of its first row; `batches` says where it ended."""
        piece = self._piece
        if piece is not None:
            yield replace(self._files[piece.file], groups=piece.groups), piece.first
            return
        self._end = 0
        for number, file in enumerate(self._files):
            # What an earlier reading knows of later files stays, should this one not come to them.
            self._starts[number : number + 1] = [self._end]
            yield file, self._end

    @property
    def num_rows(self) -> int:
        """Rows of all files, known where `places` knows every row."""
        return self._end

    @property
    def can_be_cut(self) -> bool:
        """Whether a piece of a file can be read without what is before it."""
        return FORMATS[self.format].group_rows is not None

    def pieces(self, least_rows: int) -> list[Piece]:
        """Return the rows in pieces, in order: of files that can be cut, of so many rows or more.

        Files of other formats are a piece each, known once `batches` was read to the end; of
        those that can be cut, `places` knows every row then.

        Raises:
            DataError: a file cannot be read.
        """
        group_rows = FORMATS[self.format].group_rows
        if group_rows is None:
            starts = tuple(self._starts)
            return [Piece(file, None, first, starts) for file, first in enumerate(starts)]
        sizes = [group_rows(path) for path in self.paths]
        ends = np.cumsum([sum(of_file) for of_file in sizes]).tolist()
        starts = (0, *ends[:-1])
        self._starts, self._end = list(starts), sum(map(sum, sizes))
        found = []
        for file, (first, groups) in enumerate(zip(starts, sizes, strict=True)):
            held: list[int] = []
            rows = 0
            for group, size in enumerate(groups):
                held, rows = [*held, group], rows + size
                if rows >= least_rows or group == len(groups) - 1:
                    found.append(Piece(file, tuple(held), first, starts))
                    held, first, rows = [], first + rows, 0
        return found

    def cut(self, piece: Piece) -> "TableFiles":
        """Return the same table, of which `batches` yields the rows of one piece alone.

        They keep their numbers; files are named by absolute paths.
        """
        files = [replace(file, path=file.path.absolute()) for file in self._files]
        found = TableFiles(self.table, self.format, files, version=self.version)
        found._piece, found._starts = piece, list(piece.starts)
        return found

    def places(self, rows: NDArray[np.int64]) -> tuple[Row, ...]:
        """Return file and number of rows that `batches` numbered over the whole table."""
        at = np.searchsorted(self._starts, rows, side="right") - 1
        return tuple(
            Row(str(self._files[i].path), int(row - self._starts[i] + 1))
            for i, row in zip(at, rows, strict=True)
        )


def open_table(given: Source | Logs | Path, table: str) -> TableFiles:
    """Find the files of `given` (file, glob or folder, or several of a log) and read their headers.

    Args:
        given: what the configuration says.
        table: role or name of the table, for messages.

    Raises:
        NotFoundError: nothing is there.
        DataError: formats are mixed, a file is named twice or not what its name says, or a folder
            is a table of another format.
        ConfigError: a folder is a Delta table, and the library that reads it is not installed.
    """
    sources = sources_of(given)
    found = [_Found.of(source, table) for source in sources]
    _refuse_again([path for one in found for path in one.paths], table)
    formats = {format_of(path).name: path for one in reversed(found) for path in one.paths[::-1]}
    if len(formats) > 1:
        names = " and ".join(f"{path} ({format_})" for format_, path in sorted(formats.items()))
        raise DataError(
            f"the {table} table mixes formats, {names}",
            file=sources[0].path,
            remedy="keep one format in a table",
        )
    (format_,) = formats
    header = FORMATS[format_].header
    files = [
        _named(header(path, one.values_of(path), one.source), one.source)
        for one in found
        for path in one.paths
    ]
    version = " ".join(one.lake.version for one in found if one.lake)
    return TableFiles(table, format_, files, version=version)


@dataclass(frozen=True)
class _Found:
    """The files of one source, and what a lake says of them."""

    source: TableSource
    root: Path
    paths: list[Path]
    lake: Lake | None

    @classmethod
    def of(cls, source: TableSource, table: str) -> "_Found":
        where = literal(source.path)
        if isinstance(where, RemotePath):
            return cls(source, *find_remote(where, source.path, table))
        try:
            lake = lake_at(where) if where.is_dir() else None
            if lake is not None:
                return cls(source, where, list(lake.files), lake)
            root, paths = find_files(source.path, table)
        except OSError as error:
            raise DataError(
                f"the system does not look there ({error.strerror})",
                file=source.path,
                remedy="correct the path, or allow reading it",
            ) from None
        refuse_in_lake(root, paths)
        return cls(source, root, paths, None)

    def values_of(self, path: Path) -> Mapping[str, str | None]:
        """Return the values of partition columns in a file."""
        return self.lake.files[path] if self.lake else partitions_of(path, self.root)


def _named(file: File, source: TableSource) -> File:
    both = [f"'{name}'" for name in file.partitions if name in file.names]
    if both:
        words = f"{', '.join(both)} of the folder's name is not read, as the file has that column"
        file = replace(file, said=(*file.said, words))
    return as_in_log(file, source) if isinstance(source, LogSource) else file


def _refuse_again(paths: Sequence[Path], table: str) -> None:
    """Refuse a file that two of the logs hold: its rows would count twice."""
    known: set[Path] = set()
    for path in paths:
        if path in known:
            raise DataError(
                f"the {table} table names this file twice",
                file=path,
                remedy="name it once",
            )
        known.add(path)


def table_at(path: Path, table: str, columns: Sequence[str]) -> TableFiles:
    """Return the files that messages name for one Parquet file, or for rows without a file.

    Raises:
        DataError: two columns have one name.
    """
    refuse_twins(path, columns)
    return TableFiles(table, "parquet", [File(path, tuple(columns), {})])


def fingerprint(tables: Iterable[TableFiles]) -> str:
    """Return the sha256 (hex) of the bytes of all files, table by table in reading order.

    What is declared of how they are read counts, too. Of a file in a store it is the checksum that
    the store keeps of it, not its bytes: a copy of it on this machine is another file.
    """
    digest = hashlib.sha256()
    for files in tables:
        if files.declared:
            digest.update(f"{files.table} {files.declared}\n".encode())
        if files.version:
            digest.update(f"{files.table} {files.version}\n".encode())
        for path in files.paths:
            if isinstance(path, RemotePath):
                digest.update(f"{files.table} {path.version()}\n".encode())
                continue
            # Lengths distinguish "ab" + "c" from "a" + "bc".
            digest.update(f"{files.table} {path.stat().st_size}\n".encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _with_partitions(part: pa.Table, file: File, columns: Sequence[str]) -> pa.Table:
    arrays = []
    for name in columns:
        if name in file.names:
            arrays.append(part.column(file.own(name)))
        elif name not in file.partitions:
            arrays.append(pa.nulls(len(part)))
        else:
            value = pa.array([file.partitions[name]], pa.string())
            arrays.append(value.take(pa.array(np.zeros(len(part), np.int64))))
    return pa.table(arrays, names=list(columns))
