"""Data frames as tables: pandas, polars, Arrow and whatever else speaks Arrow's C interface.

A frame becomes a Parquet file with a name made of its content, and is read from there like any
other table: the same checks, the same messages, and a configuration that can be used again.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.core.atomic import whole_file
from recsys.core.errors import ArgumentError, DataError
from recsys.features.tables.plain_values import plain_table
from recsys.features.tables.table_file import refuse_twins

FRAMES = Path(".recsys_cache") / "frames"
"""Where the frames of a session's calls are kept, below the working folder."""


def is_frame(given: object) -> bool:
    """Whether `given` is a table in memory."""
    return isinstance(given, pd.DataFrame) or hasattr(given, "__arrow_c_stream__")


def path_of(given: object, name: str, folder: Path = FRAMES) -> str:
    """Return the path of a table: the one that was given, or the file that the frame is kept in.

    Args:
        given: a path, or a data frame.
        name: what the table is called in messages, as in "interactions".
        folder: where frames are kept; made where missing.

    Raises:
        ArgumentError: it is neither.
        DataError: a column of the frame has no Arrow type; it is named.
    """
    if isinstance(given, str | Path):
        return str(given)
    table = to_arrow(given, name)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    content = buffer.getbuffer()
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as staging:
            staging.write_bytes(content)
    return str(path)


@contextmanager
def lent(tables: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Lend paths of tables, by name; data frames are kept in a folder meanwhile.

    Args:
        tables: paths or data frames; None: not given.

    Raises:
        ArgumentError: one is neither.
        DataError: a column of a frame has no Arrow type; or what the body raises, where it is about
            a frame with the name of the table in place of the file.
    """
    given = {name: one for name, one in tables.items() if one is not None}
    needs_folder = any(not isinstance(one, str | Path) for one in given.values())
    with tempfile.TemporaryDirectory() if needs_folder else nullcontext("") as folder:
        paths = {name: path_of(one, name, Path(folder)) for name, one in given.items()}
        names = {path: name for name, path in paths.items() if is_frame(given[name])}
        try:
            yield paths
        except DataError as error:
            raise error.calling(names) from None


def to_arrow(frame: Any, name: str) -> pa.Table:
    """Return a data frame as an Arrow table.

    A pandas index with a name becomes a column; one without a name is left out, as filtering
    and sorting leave it behind.

    Raises:
        ArgumentError: `frame` is no data frame.
        DataError: a column has no Arrow type; it is named.
    """
    if not is_frame(frame):
        raise ArgumentError(
            f"{name}: expected a path or a data frame (pandas, polars, Arrow); got {frame!r} "
            f"({type(frame).__name__})"
        )
    if not isinstance(frame, pd.DataFrame):
        table = pa.table(frame)
        refuse_twins(Path(name), table.column_names)
        columns = {column: _storable(table[column], column, name) for column in table.column_names}
        return pa.table(columns)
    if any(level is not None for level in frame.index.names):
        frame = frame.reset_index()
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(
            f"two columns are named '{twice[0]}'", file=name, remedy="rename one of them"
        )
    columns = {str(column): _column(frame[column], name) for column in frame.columns}
    return pa.table(columns)


def _column(values: "pd.Series[Any]", name: str) -> pa.Array:
    try:
        return pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"values of several types or of one that Parquet lacks ({reason})",
            file=name,
            column=str(values.name),
            remedy="cast the column to one type",
        ) from None


def _storable(column: pa.ChunkedArray, called: str, name: str) -> pa.ChunkedArray:
    """Return a column in types that Parquet holds: polars has text as views.

    Raises:
        DataError: there is no such type.
    """
    if pa.types.is_dictionary(column.type) and not pa.types.is_string_view(column.type.value_type):
        return column
    try:
        return plain_table(pa.table({called: column})).column(0)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(
            f"values of a type that Parquet lacks ({str(error).splitlines()[0]})",
            file=name,
            column=called,
            remedy="cast the column to text, numbers, times or lists of them",
        ) from None
