"""Arrow columns as the arrays that encoding needs; each refusal names the column."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.strict import nearest
from recsys.features.schema import Feature, MultiCategoricalFeature, VectorFeature

_MICROSECONDS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


class Times(NamedTuple):
    """values (N,) int64 microseconds since 1970 UTC, 0 where null; valid (N,) bool."""

    values: NDArray[np.int64]
    valid: NDArray[np.bool_]


def column_of(table: pa.Table, feature: Feature) -> pa.ChunkedArray:
    """Return the column that `feature` reads.

    Raises:
        DataError: the table lacks it; the nearest column is named.
    """
    name = feature.source_column
    if name not in table.column_names:
        raise DataError(
            f"column '{name}' of feature '{feature.name}' is missing"
            f"{nearest(name, table.column_names)}; the table has {', '.join(table.column_names)}"
        )
    return table.column(name)


def value_family(column: pa.ChunkedArray, feature: Feature) -> str:
    """Return "integer", "string", "boolean" or "null": values of two families never compare.

    Raises:
        DataError: the values are of a type that cannot be a category.
    """
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = {
        "integer": pa.types.is_integer,
        "string": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        "boolean": pa.types.is_boolean,
        "null": pa.types.is_null,
    }
    for family, check in checks.items():
        if check(kind):
            return family
    raise DataError(
        f"column '{feature.source_column}' is {kind}; a {feature.kind} feature needs text, whole "
        f"numbers or booleans (declare '{feature.name}' numeric, or cast the column)"
    )


def as_float(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return (N,) float64, NaN where null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def as_vectors(column: pa.ChunkedArray, feature: VectorFeature) -> NDArray[np.float32]:
    """Return (N, dim) float32, NaN rows where null."""
    out = np.full((len(column), feature.dim), np.nan, np.float32)
    if pa.types.is_null(column.type):
        return out
    lists = _one_array(column).cast(pa.large_list(pa.float32()))
    lengths = np.asarray(pc.list_value_length(lists).fill_null(-1))
    wrong = np.flatnonzero((lengths >= 0) & (lengths != feature.dim))
    if len(wrong):
        raise DataError(
            f"column '{feature.source_column}', row {wrong[0] + 1}: a vector of "
            f"{lengths[wrong[0]]} numbers where dim: {feature.dim} is declared"
        )
    out[lengths >= 0] = np.asarray(lists.flatten()).reshape(-1, feature.dim)
    return out


def as_lists(column: pa.ChunkedArray, feature: Feature) -> pa.Array:
    """Return a large_list array: an Arrow list as it is, text cut at its separator or to words."""
    values = _one_array(column)
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), pa.large_list(pa.large_string()))
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if feature.kind == "text":
        return _words(values)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        assert isinstance(feature, MultiCategoricalFeature)
        return _parts(values, feature)
    kind = values.type.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return values.cast(pa.large_list(kind))


def as_microseconds(column: pa.ChunkedArray, unit: str) -> Times:
    """Return instants of a column of whole numbers in `unit`, of Arrow times, or of ISO text."""
    values = _one_array(column)
    valid = np.asarray(values.is_valid())
    if pa.types.is_null(values.type):
        return Times(np.zeros(len(values), np.int64), valid)
    if unit == "datetime":
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = _instants_of_text(values)
        whole = values.cast(pa.timestamp("us")).cast(pa.int64())
        return Times(np.asarray(whole.fill_null(0)), valid)
    factor, divisor = _MICROSECONDS[unit]
    whole = np.asarray(values.cast(pa.int64()).fill_null(0))
    return Times(whole * factor // divisor, valid)


def _instants_of_text(values: pa.Array) -> pa.Array:
    """ISO text to timestamps in UTC, which is what a text without a zone means too."""
    zoned = pc.match_substring_regex(values, r"(Z|[+-][0-9]{2}:?[0-9]{2})$")
    nothing = pa.scalar(None, values.type)
    with_zone = pc.if_else(zoned, values, nothing).cast(pa.timestamp("us", "UTC"))
    without = pc.if_else(zoned, nothing, values).cast(pa.timestamp("us"))
    return pc.coalesce(with_zone.cast(pa.timestamp("us")), without)


def _words(values: pa.Array) -> pa.Array:
    """Lower-cased runs of letters and digits."""
    plain = pc.replace_substring_regex(
        pc.utf8_lower(values.cast(pa.large_string())), r"[^\p{L}\p{N}]+", " "
    )
    return _split(pc.utf8_trim_whitespace(plain), " ")


def _parts(values: pa.Array, feature: MultiCategoricalFeature) -> pa.Array:
    if feature.separator is None:
        raise DataError(
            f"column '{feature.source_column}' is text; give the multi_categorical feature "
            f"'{feature.name}' a separator, as in separator: \"|\""
        )
    lists = _split(values.cast(pa.large_string()), feature.separator)
    trimmed = pc.utf8_trim_whitespace(lists.values)
    return pa.LargeListArray.from_arrays(lists.offsets, trimmed, mask=lists.is_null())


def _split(values: pa.Array, separator: str) -> pa.Array:
    """Text to lists; empty text is an empty list, which counts as null."""
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
    return pc.split_pattern(values, separator).cast(pa.large_list(pa.large_string()))


def _one_array(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
