"""CSV files: their columns, and their rows as text, a batch at a time."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recsys.core.errors import DataError, Row
from recsys.features.tables.compression import plain_bytes
from recsys.features.tables.dialect import find_dialect
from recsys.features.tables.encodings import WESTERN, decoded, settled, undecodable
from recsys.features.tables.sources import TableSource
from recsys.features.tables.table_file import File, refuse_twins

_BLOCK_BYTES = 1 << 24
_HEAD_BYTES = 1 << 20
_BAD_CSV_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)")


def csv_file(path: Path, partitions: Mapping[str, str | None], declared: TableSource) -> File:
    """Return the file as its first rows describe it.

    Raises:
        DataError: it is in no encoding that is known or not in the one declared, empty, its first
            line does not name the columns, or two have one name.
    """
    with plain_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES)
        is_whole = not stream.read(1)
    encoding = settled(path, head, declared.encoding)
    text = decoded(path, head, encoding, is_whole=is_whole)
    dialect = find_dialect(text, path, is_whole=is_whole, delimiter=declared.delimiter)
    refuse_twins(path, dialect.names)
    said = dialect.said
    if encoding in (WESTERN, "utf-16-le", "utf-16-be") and declared.encoding is None:
        said = (f"no UTF-8; read as {encoding}", *said)
    given = tuple(one for one in (declared.encoding, declared.delimiter) if one is not None)
    return File(path, dialect.names, partitions, dialect, encoding, given, said)


def read_csv(file: File, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file as text, with `columns` alone.

    Raises:
        DataError: the file cannot be parsed; the row is named where it is known.
    """
    columns = columns or list(file.columns[:1])
    dialect = file.dialect
    if dialect.is_bare:
        return
    # No handler for bad rows: Arrow's threads would hold Python code when the process ends.
    parse = pa.csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quoting.quote or False,
        escape_char=dialect.quoting.escape or False,
        newlines_in_values=True,
    )
    convert = pa.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    # Without threads the parser knows the number of a row that it refuses.
    read = pa.csv.ReadOptions(
        use_threads=False,
        block_size=_BLOCK_BYTES,
        encoding=file.encoding,
        column_names=list(dialect.names) if dialect.added else None,
        skip_rows_after_names=int(dialect.added),
    )
    start = 0
    try:
        with (
            plain_bytes(file.path) as stream,
            pa.csv.open_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            ) as reader,
        ):
            for batch in reader:
                _refuse_nul(file, batch, start)
                start += len(batch)
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise _broken_csv(file, error) from None


def _refuse_nul(file: File, batch: pa.RecordBatch, start: int) -> None:
    """Refuse a NUL byte in text: what writes one was not writing text."""
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        data = values.buffers()[2]
        if data is None or not len(data) or np.frombuffer(data, np.uint8).min():
            continue
        holds = np.asarray(pc.find_substring(values, "\0").fill_null(-1)) >= 0
        if holds.any():
            raise DataError(
                "the value holds a NUL byte, which no text does",
                column=name,
                rows=[Row(str(file.path), start + int(holds.argmax()) + 1)],
                remedy="write the file again, or remove it (tr -d '\\000')",
            )


def _broken_csv(file: File, error: Exception) -> DataError:
    row = _BAD_CSV_ROW.search(str(error))
    if row:
        number, expected, actual, text = row.groups()
        return DataError(
            f"{actual} fields where the first line names {expected}: {text!r}",
            rows=[Row(str(file.path), int(number) - 1)],
            remedy=_remedy(file, int(actual) > int(expected)),
        )
    reason = str(error).splitlines()[0]
    return undecodable(file.path, file.encoding) or DataError(
        f"not a readable CSV file ({reason})", file=file.path
    )


def _remedy(file: File, too_many: bool) -> str:
    sign = repr(file.dialect.delimiter)
    if not too_many:
        return "write every field, an empty one too"
    if file.dialect.quoting.escape is None:
        return f"quote fields that hold {sign}, and double the quotes in them"
    return f"quote fields that hold {sign}, and write a backslash before the quotes in them"
