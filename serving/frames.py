"""Requests and rows as pandas data frames: in their Arrow types, and answers back."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys.core.errors import DataError, Row
from recsys.features.tables.ledger import is_list

INPUT = "the model input"
_WRONG = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)


def as_table(frame: pd.DataFrame, columns: pa.Schema) -> pa.Table:
    """Return those of `columns` that a data frame has, in the types that its values have.

    What the model reads them as is for the reader of requests to say
    (`recsys.features.requests.values`).

    Raises:
        DataError: a column holds values of several types, or of one that no table has.
    """
    frame = _by_rows(frame, columns)
    names = [name for name in columns.names if name in frame.columns]
    for name in names:
        if isinstance(frame[name], pd.DataFrame):
            raise DataError(
                "two columns have this name", file=INPUT, column=name, remedy="rename one of them"
            )
    return pa.table({name: _array(frame[name], name) for name in names})


def _by_rows(frame: pd.DataFrame, columns: pa.Schema) -> pd.DataFrame:
    """Return a frame with a row a request.

    MLflow makes one row of the whole columns that JSON holds ("inputs"): a list of as many values
    in each cell, also in those of a column that is no column of lists.
    """
    if len(frame) != 1:
        return frame
    cells = {str(name): frame[name].iloc[0] for name in frame.columns.unique()}
    lists = {name: cell for name, cell in cells.items() if isinstance(cell, list | np.ndarray)}
    single = [field.name for field in columns if not is_list(field.type)]
    if not any(name in lists for name in single) or len({len(one) for one in lists.values()}) != 1:
        return frame
    return pd.DataFrame({name: pd.Series(list(cell), dtype=object) for name, cell in lists.items()})


def _array(values: "pd.Series[Any]", name: str) -> pa.Array:
    """Return a column as Arrow has it; NaN is null."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    if values.dtype != object:
        found = pa.Array.from_pandas(values)
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    cells = [_plain(value) for value in values]
    try:
        return pa.array(cells)
    except _WRONG:
        row, reason = _first_other(cells)
    raise DataError(
        f"{cells[row]!r} is not of the type of the rows before it ({reason})"
        if row
        else f"{cells[row]!r} is of a type that no table has ({reason})",
        column=name,
        rows=[Row(INPUT, row + 1)],
        remedy="give values of one type, and null where one is not known",
    )


def _first_other(cells: list[Any]) -> tuple[int, str]:
    """Return the first value with which Arrow makes no array of those up to it, and why."""
    fits, fails, reason = 0, len(cells), ""
    while fits < fails:
        tried = (fits + fails + 1) // 2
        try:
            pa.array(cells[:tried])
            fits = tried
        except _WRONG as error:
            fails, reason = tried - 1, str(error).splitlines()[0]
    return fits, reason


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a data frame whose lists are lists and whose ids never were floats."""

    def series(values: Any) -> "pd.Series[Any]":
        numbers = pa.types.is_floating(values.type)
        whole = pa.types.is_integer(values.type) and not values.null_count
        return pd.Series(values.to_pylist(), dtype=None if numbers or whole else object)

    return pd.DataFrame({name: series(table.column(name)) for name in table.schema.names})


def _plain(value: Any) -> Any:
    """Undo what data frames do to missing values and to lists."""
    if isinstance(value, np.ndarray):
        # As nanoseconds times would become plain numbers.
        value = (value.astype("datetime64[us]") if value.dtype.kind == "M" else value).tolist()
    if isinstance(value, pd.Series):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    return None if value is pd.NaT or value is pd.NA or value != value else value
