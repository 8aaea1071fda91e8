"""Parquet files: their columns, and their rows a batch at a time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.core.errors import DataError
from recsys.core.remote.faults import store_fault
from recsys.core.remote.path import RemotePath
from recsys.features.tables.sources import TableSource
from recsys.features.tables.table_file import File, refuse_twins

_BATCH_ROWS = 1 << 18


@contextmanager
def opened_parquet(path: Path, **how: Any) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of this machine or of a store, where only what is asked for is fetched.

    Args:
        path: of the file.
        how: further arguments of `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: the store refuses it, or does not answer.
        ArrowException: it is no Parquet file.
        OSError: it cannot be read.
    """
    if not isinstance(path, RemotePath):
        with pq.ParquetFile(path, **how) as opened:
            yield opened
        return
    try:
        with path.source() as source, pq.ParquetFile(source, pre_buffer=True, **how) as opened:
            yield opened
    except OSError as error:
        raise store_fault(path, error) or error from None


def read_columns(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return some columns, or all, of a Parquet file that the engine wrote, here or in a store."""
    with opened_parquet(path) as opened:
        return opened.read(columns=columns)


def parquet_file(path: Path, partitions: Mapping[str, str | None], declared: TableSource) -> File:
    """Return the file as its footer describes it.

    Raises:
        DataError: it is not Parquet, two columns have one name, or what CSV files have is declared.
    """
    if declared.encoding or declared.delimiter:
        raise DataError(
            "encoding and delimiter are of CSV files, and this is Parquet",
            file=path,
            remedy="leave them out under 'data'",
        )
    try:
        with opened_parquet(path) as opened:
            names = tuple(opened.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken_parquet(path, error) from None
    refuse_twins(path, names)
    return File(path, names, partitions)


def read_parquet(file: File, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file, those of `file.groups` where it names some, with `columns` alone.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with opened_parquet(file.path, page_checksum_verification=True) as opened:
            rows = opened.iter_batches(
                _BATCH_ROWS, row_groups=file.groups, columns=columns, use_threads=False
            )
            for batch in rows:
                batch.validate(full=True)  # text that is no UTF-8 would fail anywhere
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(file.path, error) from None


def group_rows(path: Path) -> list[int]:
    """Return how many rows each row group of a file has.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with opened_parquet(path) as opened:
            facts = opened.metadata
            return [facts.row_group(number).num_rows for number in range(facts.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from None


def _broken_parquet(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(
        f"not a readable Parquet file ({reason})", file=path, remedy="write it again or remove it"
    )
