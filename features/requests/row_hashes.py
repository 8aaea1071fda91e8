"""A 64-bit hash of each row of a table: what a later table is compared with, row by row.

The same values under the same names have the same hash on every machine, whichever of Arrow's
types for text, whole numbers or lists holds them, and whatever the order of the columns. Rows that
differ share a hash with a chance of 2^-64.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.encoding.hashing import NULL_HASH, hash_values, splitmix64
from recsys.features.requests.values import one_array
from recsys.features.tables.ledger import is_list

VERSION = 1
"""Of the hashes: those of another version say nothing about these."""
_STEP = np.uint64(0xD1B54A32D192ED03)
_NULL = NULL_HASH.view(np.uint64)


def row_hashes(table: pa.Table) -> NDArray[np.uint64]:
    """Return a hash of each row, (N,)."""
    total = np.zeros(table.num_rows, np.uint64)
    for name in table.column_names:
        salt = hash_values(pa.array([name])).view(np.uint64)[0]
        total += splitmix64(_hashes(one_array(table.column(name))) ^ salt)
    return total


def _hashes(values: pa.Array) -> NDArray[np.uint64]:
    kind = values.type
    if is_list(kind):
        return _of_lists(values)
    if pa.types.is_dictionary(kind):
        table = np.append(_hashes(values.dictionary), _NULL)
        codes: NDArray[np.uint64] = table[np.asarray(values.indices.fill_null(len(table) - 1))]
        return codes
    if pa.types.is_floating(kind):
        numbers = np.asarray(values.cast(pa.float64()).fill_null(0)) + 0.0  # -0.0 is 0.0
        bits = np.where(np.isnan(numbers), np.nan, numbers).view(np.uint64)
        return np.where(np.asarray(values.is_null()), _NULL, splitmix64(bits))
    if pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        values = values.view(width)
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        values = _as_text(values)
    return hash_values(values).view(np.uint64)


def _as_text(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if one is None else repr(one) for one in values.to_pylist()])


def _of_lists(lists: pa.Array) -> NDArray[np.uint64]:
    """Hash lists by their values in order, and their length; null is no empty list."""
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    values = _hashes(lists.flatten())
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    placed = splitmix64(values + place.astype(np.uint64) * _STEP)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(placed, dtype=np.uint64)])
    hashes = splitmix64((sums[ends] - sums[starts]) ^ lengths.astype(np.uint64))
    return np.where(np.asarray(lists.is_null()), _NULL, hashes)
