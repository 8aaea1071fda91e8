"""Columns of Spark's data frames as Arrow has them, and Arrow's as Spark can hold them."""

from typing import Any

import pyarrow as pa


def arrow_schema(frame: Any) -> pa.Schema:
    """Return the columns of a data frame as its batches have them; nothing is computed."""
    return frame.limit(0).toArrow().schema


def spark_schema(schema: pa.Schema) -> Any:
    """Return the columns of `holdable` as Spark declares them."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def holdable(schema: pa.Schema) -> pa.Schema:
    """Return columns in types that Spark has.

    Text and lists with 32-bit offsets, values in place of dictionaries, signed whole numbers, times
    in microseconds; a column of nulls alone is text.
    """
    return pa.schema([pa.field(field.name, _kind(field.type)) for field in schema])


def _kind(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_kind(kind.value_type))
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    for found, held in (
        (pa.types.is_large_string, pa.string()),
        (pa.types.is_string_view, pa.string()),
        (pa.types.is_null, pa.string()),
        (pa.types.is_large_binary, pa.binary()),
        (pa.types.is_unsigned_integer, pa.int64()),
        (pa.types.is_float16, pa.float32()),
    ):
        if found(kind):
            return held
    return kind
