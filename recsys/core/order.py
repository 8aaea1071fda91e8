"""The stable order of rows by whole numbers, from one sort without the rows at its side.

`np.lexsort` and stable `np.argsort` merge, once a key; NumPy sorts plain 64-bit numbers with vector
instructions, ten times as fast. So the keys and the row numbers are put into one number where that
holds them. All ways have the same result.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 63
_SAMPLE = 1000
_WIDE = 1 << 31


def stable_order(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows (N,) in the order of `keys` (each (N,) of signed whole numbers).

    The first key counts most; rows that are equal in all keys stay in their order.
    """
    num_rows = len(keys[0])
    row_bits = max(num_rows - 1, 0).bit_length()
    joined = _joined(keys, _BITS - row_bits)
    if joined is not None:
        return _rows_of((joined << row_bits) | np.arange(num_rows), row_bits)
    joined = _joined(keys, _BITS)
    if joined is None:
        return np.lexsort(keys[::-1])
    order = np.argsort(joined)  # not stable: equal ones are put in their order now
    ordered = joined[order]
    changes = np.zeros(num_rows, np.int64)
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:], casting="unsafe")
    return _rows_of((np.cumsum(changes) << row_bits) | order, row_bits)


def narrowed(values: NDArray[Any]) -> tuple[NDArray[np.int64], int] | None:
    """Return values (N,) as numbers from 0 in the same order, and the largest of these.

    Numbers far apart that are multiples of one step, as times in whole seconds are, become close.
    None: the largest is more than int64 holds above the smallest.
    """
    if not len(values):
        return np.zeros(0, np.int64), 0
    low, high = int(values.min()), int(values.max())
    if high - low > np.iinfo(np.int64).max:
        return None
    out = np.subtract(values, low, dtype=np.int64)
    if high - low < _WIDE:
        return out, high - low
    step = int(np.gcd.reduce(out[:: max(1, len(out) // _SAMPLE)]))
    if step > 1:
        steps = out // step
        if np.array_equal(steps * step, out):
            return steps, (high - low) // step
    return out, high - low


def _joined(keys: tuple[NDArray[Any], ...], most_bits: int) -> NDArray[np.int64] | None:
    """Return one number a row, in the order of the keys; None where `most_bits` do not hold it."""
    out, used = np.zeros(len(keys[0]), np.int64), 0
    for key in keys:
        near = narrowed(key)
        if near is None:
            return None
        values, bits = near[0], near[1].bit_length()
        used += bits
        if used > most_bits:
            return None
        out <<= bits
        out |= values
    return out


def _rows_of(packed: NDArray[np.int64], row_bits: int) -> NDArray[np.int64]:
    packed.sort()
    packed &= (1 << row_bits) - 1
    return packed
