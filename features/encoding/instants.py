"""Instants of a column of times, in microseconds."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MICROSECONDS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""Unit -> factor and divisor to microseconds."""


class Times(NamedTuple):
    """values (N,) int64 microseconds since 1970 UTC, 0 where null; valid (N,) bool."""

    values: NDArray[np.int64]
    valid: NDArray[np.bool_]


def as_microseconds(column: pa.Array | pa.ChunkedArray, unit: str) -> Times:
    """Return instants of a column of whole numbers in `unit`, of Arrow times, or of ISO text."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    valid = np.asarray(values.is_valid())
    if pa.types.is_null(values.type):
        return Times(np.zeros(len(values), np.int64), valid)
    if unit == "datetime":
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = _instants_of_text(values)
        whole = values.cast(pa.timestamp("us")).cast(pa.int64())
        return Times(np.asarray(whole.fill_null(0)), valid)
    factor, divisor = MICROSECONDS[unit]
    whole = np.asarray(values.cast(pa.int64()).fill_null(0))
    return Times(whole * factor // divisor, valid)


def _instants_of_text(values: pa.Array) -> pa.Array:
    """ISO text to timestamps in UTC, which is what a text without a zone means too."""
    zoned = pc.match_substring_regex(values, r"(Z|[+-][0-9]{2}:?[0-9]{2})$")
    nothing = pa.scalar(None, values.type)
    with_zone = pc.if_else(zoned, values, nothing).cast(pa.timestamp("us", "UTC"))
    without = pc.if_else(zoned, nothing, values).cast(pa.timestamp("us"))
    return pc.coalesce(with_zone.cast(pa.timestamp("us")), without)
