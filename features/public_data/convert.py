"""The files of a public data set as Parquet tables: found, read, thinned out, written whole."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.core.atomic import whole_file
from recsys.core.errors import DataError, NotFoundError
from recsys.features.public_data.data_set import DataSet, Protocol, Table
from recsys.features.public_data.raw import Reader

_log = logging.getLogger(__name__)
Found = list[tuple[Path, Reader]]


@dataclass(frozen=True)
class Written:
    """paths: of the tables, the log first. said: what a person should know."""

    paths: tuple[Path, ...]
    said: tuple[str, ...]


def convert(name: str, data: DataSet, protocol: Protocol, given: Path, out: Path) -> Written:
    """Write the tables of a data set to `out`, a Parquet file each.

    Args:
        name: of the data set.
        data: it.
        protocol: how it is to be split.
        given: the folder with its files, at any depth, or one of the files.
        out: folder for the tables.

    Raises:
        NotFoundError: a file that it needs is not there.
        DataError: a file is not as its authors wrote it.
    """
    found = {table.name: files_of(table, given) for table in data.tables}
    missing = [one for one in data.tables if one.needed and not found[one.name]]
    if missing:
        raise NotFoundError(_not_there(name, missing[0], given))
    out.mkdir(parents=True, exist_ok=True)
    said: list[str] = list(data.notes)
    paths: list[Path] = []
    for table in sorted(data.tables, key=lambda one: not one.needed):
        if not found[table.name]:
            patterns = " or ".join(table.files)
            said.append(f"there is no {patterns}: the model has no table '{table.name}'")
            continue
        path = out / f"{table.name}.parquet"
        rows = _write(found[table.name], path)
        if table.rows and rows != table.rows:
            said.append(f"{table.name}: {rows:,} rows, where the whole data set has {table.rows:,}")
        paths.append(path)
    if protocol.core:
        said.append(_thin_out(paths[0], protocol.core, protocol.item_core or protocol.core))
    return Written(tuple(paths), tuple(said))


def files_of(table: Table, given: Path) -> Found:
    """Return the files below `given` that make a table, each with its reader."""
    below = [given] if given.is_file() else sorted(p for p in given.rglob("*") if p.is_file())
    return [
        (path, reader)
        for pattern, reader in table.files.items()
        for path in below
        if fnmatch(path.name, pattern)
    ]


def _not_there(name: str, table: Table, given: Path) -> str:
    patterns = " or ".join(table.files)
    if not given.exists():
        return f"{given} does not exist; name the folder with {patterns}"
    files = [given] if given.is_file() else sorted(p for p in given.rglob("*") if p.is_file())
    names = ", ".join(path.name for path in files[:8]) or "nothing"
    more = f" and {len(files) - 8} more" if len(files) > 8 else ""
    return f"{given}: {name} needs {patterns}; there is {names}{more}"


def _write(found: Found, path: Path) -> int:
    rows = 0
    with whole_file(path) as staging:
        writer: pq.ParquetWriter | None = None
        try:
            for table in _tables(found):
                if writer is None:
                    writer = pq.ParquetWriter(staging, table.schema, compression="zstd")
                writer.write_table(table.cast(writer.schema))
                rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return rows


def _tables(found: Found) -> Iterator[pa.Table]:
    for path, reader in found:
        _log.info("reading %s", path)
        yield from reader(path)


def _thin_out(path: Path, of_user: int, of_item: int) -> str:
    """Keep the rows of users and items with so many rows, until all that stay have them."""
    table = pq.read_table(path)
    user, item = [name for name in table.column_names if name.endswith("_id")][:2]
    sides = ((_codes(table, user), of_user), (_codes(table, item), of_item))
    kept, before = np.ones(table.num_rows, bool), -1
    while before != int(kept.sum()):
        before = int(kept.sum())
        for codes, least in sides:
            kept &= (
                np.bincount(codes[kept], minlength=int(codes.max(initial=-1)) + 1)[codes] >= least
            )
    if not before:
        raise DataError(
            f"no row is of a '{user}' with {of_user} rows and of an '{item}' with {of_item}",
            file=path,
            remedy="choose another --protocol",
        )
    with whole_file(path) as staging:
        pq.write_table(table.filter(pa.array(kept)), staging, compression="zstd")
    return (
        f"{before:,} of {table.num_rows:,} rows are left of each '{user}' with {of_user} rows or "
        f"more and each '{item}' with {of_item} or more"
    )


def _codes(table: pa.Table, name: str) -> NDArray[np.int64]:
    column = table.column(name).combine_chunks()
    return np.asarray(column.dictionary_encode().indices.fill_null(0)).astype(np.int64)
