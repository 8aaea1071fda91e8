"""CSV files: their columns, and their rows as text, a batch at a time."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from recsys.core.errors import DataError, Row
from recsys.features.tables.sources import TableSource
from recsys.features.tables.table_file import File, refuse_twins

_BLOCK_BYTES = 1 << 24
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How files of that encoding begin."""
_BAD_CSV_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)")


def csv_file(path: Path, partitions: Mapping[str, str | None], declared: TableSource) -> File:
    """Return the file as its first line describes it.

    Raises:
        DataError: it is not UTF-8, empty, or two columns have one name.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(1 << 20)
    try:
        text = head.decode(declared.encoding or "utf-8-sig", errors="strict").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        # A character cut at the end of the block is no fault; anything before it is.
        if error.start < len(head) - 4 or len(head) < 1 << 20:
            raise _not_utf8(path) from None
        text = head[: error.start].decode("utf-8-sig")
    first = text.split("\n", 1)[0]
    if not first.strip():
        raise DataError("empty CSV file", file=path, remedy="it needs a first line of column names")
    delimiter = declared.delimiter or next((sign for sign in ",;\t|" if sign in first), ",")
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
    refuse_twins(path, names)
    said = tuple(one for one in (declared.encoding, declared.delimiter) if one is not None)
    encoding = declared.encoding or "utf-8"
    return File(path, tuple(names), partitions, delimiter, encoding, said)


def read_csv(file: File, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file as text, with `columns` alone.

    Raises:
        DataError: the file cannot be parsed; the row is named where it is known.
    """
    columns = columns or list(file.columns[:1])
    # No handler for bad rows: Arrow's threads would hold Python code when the process ends.
    parse = pa.csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True)
    convert = pa.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    # Without threads the parser knows the number of a row that it refuses.
    read = pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, encoding=file.encoding)
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


def _broken_csv(file: File, error: Exception) -> DataError:
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
