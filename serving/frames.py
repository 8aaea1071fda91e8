"""Requests and rows as pandas data frames: in their Arrow types, and answers back."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys.core.errors import DataError, Row
from recsys.features.requests.steps import TIMES

INPUT = "the model input"


def as_table(frame: pd.DataFrame, columns: pa.Schema) -> pa.Table:
    """Return those of `columns` that a data frame has, in their types.

    Raises:
        DataError: a column cannot be what the model was trained with.
    """
    arrays = {}
    for field in columns:
        if field.name not in frame.columns:
            continue
        values = [_plain(value) for value in frame[field.name]]
        kind = field.type
        lists = (row for row in values if isinstance(row, list))
        if field.name == TIMES and any(isinstance(one, str) for row in lists for one in row):
            kind = pa.large_list(pa.string())  # ISO text, which the reader of requests accepts too
        arrays[field.name] = _array(values, field.with_type(kind))
    return pa.table(arrays)


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    wrong = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)
    try:
        return pa.array(values, field.type)
    except wrong:
        for row, value in enumerate(values):
            try:
                pa.array([value], field.type)
            except wrong as error:
                raise DataError(
                    f"must be {field.type}: {error}",
                    column=field.name,
                    rows=[Row(INPUT, row + 1)],
                    remedy="give values of that type",
                ) from None
        raise


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
        return (value.astype("datetime64[us]") if value.dtype.kind == "M" else value).tolist()
    if isinstance(value, list | tuple):
        return list(value)
    return None if pd.isna(value) else value
