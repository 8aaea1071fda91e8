"""Parquet files: their columns, and their rows a batch at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.core.errors import DataError
from recsys.features.tables.sources import TableSource
from recsys.features.tables.table_file import File, refuse_twins

_BATCH_ROWS = 1 << 18


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
        with pq.ParquetFile(path) as opened:
            names = tuple(opened.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken_parquet(path, error) from None
    refuse_twins(path, names)
    return File(path, names, partitions)


def read_parquet(file: File, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file, with `columns` alone.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True) as opened:
            for batch in opened.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                batch.validate(full=True)  # text that is no UTF-8 would fail anywhere
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(file.path, error) from None


def _broken_parquet(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(
        f"not a readable Parquet file ({reason})", file=path, remedy="write it again or remove it"
    )
