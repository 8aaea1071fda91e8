"""Formats of files, by name: how a file's columns and rows are read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recsys.core.errors import DataError
from recsys.features.tables.compression import COMPRESSIONS, name_without
from recsys.features.tables.csv_files import csv_file, read_csv
from recsys.features.tables.parquet_files import group_rows, parquet_file, read_parquet
from recsys.features.tables.sources import TableSource
from recsys.features.tables.table_file import File


@dataclass(frozen=True)
class FileFormat:
    """One format.

    endings: of file names, in small letters, before that of a compression. untyped: all values
    are text. header: path, the values of its folders' names and what is declared -> the file.
    read: file and names of columns -> its rows. group_rows: path -> rows of each of its parts that
    can be read without the others (`File.groups`); None: a file is read from its first row on.
    """

    name: str
    endings: tuple[str, ...]
    untyped: bool
    header: Callable[[Path, Mapping[str, str | None], TableSource], File]
    read: Callable[[File, list[str]], Iterator[pa.Table]]
    group_rows: Callable[[Path], list[int]] | None = None


FORMATS: Mapping[str, FileFormat] = {
    one.name: one
    for one in (
        FileFormat(
            "parquet", (".parquet", ".pq", ".parq"), False, parquet_file, read_parquet, group_rows
        ),
        FileFormat("csv", (".csv", ".tsv"), True, csv_file, read_csv),
    )
}


def format_of(path: Path) -> FileFormat:
    """Return the format of a file by its name, or by how it begins.

    Raises:
        DataError: it is none of them.
    """
    for one in FORMATS.values():
        if name_without(path).endswith(one.endings):
            return one
    with path.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return FORMATS["parquet"]
    packed = ", *.csv".join(one.ending for one in COMPRESSIONS.values())
    raise DataError(
        "neither Parquet nor CSV",
        file=path,
        remedy=f"name it *.parquet or *.csv (compressed: *.csv{packed}), or use "
        f"a glob such as {path.parent}/*.parquet that leaves it out",
    )
