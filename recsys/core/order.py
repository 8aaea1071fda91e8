"""The stable order of rows by whole numbers, from one sort without the rows at its side.

`np.lexsort` and stable `np.argsort` merge, once a key; NumPy sorts plain 64-bit numbers with vector
instructions, ten times as fast. So the keys and the row numbers are put into one number. Where that
does not hold them, rows are parted first by the highest bits of the first key, and each part is
sorted so. All ways have the same result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 63
_SAMPLE = 1000
_WIDE = 1 << 31
_CHUNK, _CHUNK_TO_PART = 1 << 16, 1 << 20
_FEWEST_PARTS, _MOST_PARTS = 8, 12
"""Bits of the first key that rows are parted by."""


@dataclass(frozen=True)
class _Key:
    """Whole numbers (N,), each as `(value - low) / step`, a number from 0 of so many bits."""

    values: NDArray[Any]
    low: int
    step: int
    largest: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> "_Key | None":
        """Find lowest value and step of (N,) values, N > 0; None: too far apart for int64.

        Numbers far apart that are multiples of one step, as times in whole seconds are, become
        close.
        """
        low, high = int(values.min()), int(values.max())
        if high - low > np.iinfo(np.int64).max:
            return None
        found = cls(values, low, 1, high - low)
        if high - low < _WIDE:
            return found
        step = int(np.gcd.reduce(found.block(slice(None, None, max(1, len(values) // _SAMPLE)))))
        if step > 1 and not any((found.block(rows) % step).any() for rows in _chunks(len(values))):
            return cls(values, low, step, (high - low) // step)
        return found

    @property
    def bits(self) -> int:
        """How many bits hold each number."""
        return self.largest.bit_length()

    def block(self, rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of some rows."""
        out = np.subtract(self.values[rows], self.low, dtype=np.int64)
        return out if self.step == 1 else out // self.step


def stable_order(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows (N,) in the order of `keys` (each (N,) of signed whole numbers).

    The first key counts most; rows that are equal in all keys stay in their order. Beside what it
    returns it takes next to no memory, unless no one number holds the keys.
    """
    num_rows = len(keys[0])
    found = [_Key.of(one) for one in keys] if num_rows else []
    close = [one for one in found if one is not None]
    if len(close) < len(keys):
        return np.lexsort(keys[::-1])
    too_many = sum(one.bits for one in close) + (num_rows - 1).bit_length() - _BITS
    if too_many <= 0:
        out = np.empty(num_rows, np.int64)
        for rows in _chunks(num_rows):
            out[rows] = _joined(close, rows)
        return _sorted_rows(out, num_rows)
    parts = min(max(too_many, _FEWEST_PARTS), close[0].bits)
    if too_many <= parts <= _MOST_PARTS:
        return _parted(close, num_rows, parts)
    return np.lexsort(keys[::-1])


def narrowed(values: NDArray[Any]) -> tuple[NDArray[np.int64], int] | None:
    """Return values (N,) as numbers from 0 in the same order, and the largest of these.

    None: the largest is more than int64 holds above the smallest.
    """
    if not len(values):
        return np.zeros(0, np.int64), 0
    key = _Key.of(values)
    return None if key is None else (key.block(slice(None)), key.largest)


def _parted(keys: Sequence[_Key], num_rows: int, bits: int) -> NDArray[np.int64]:
    """Return the order part by part: rows whose first keys have the same highest `bits` bits."""
    first, shift = keys[0], keys[0].bits - bits
    each = range(0, num_rows, _CHUNK_TO_PART)
    chunks = [slice(start, min(start + _CHUNK_TO_PART, num_rows)) for start in each]
    counts = np.array(
        [np.bincount(first.block(rows) >> shift, minlength=1 << bits) for rows in chunks]
    )
    sizes = counts.sum(0)
    places = np.cumsum(sizes) - sizes
    order = np.empty(num_rows, np.int64)
    for rows, count in zip(chunks, counts, strict=True):
        part = (first.block(rows) >> shift).astype(np.uint16)
        by_part = np.argsort(part, kind="stable")  # of 16 bits it is a radix sort
        by_part += rows.start
        starts = np.cumsum(count) - count
        for one in np.flatnonzero(count).tolist():
            size = count[one]
            order[places[one] : places[one] + size] = by_part[starts[one] : starts[one] + size]
        places += count
    start = 0
    for size in sizes[sizes > 0].tolist():
        rows_of_part = order[start : start + size]
        if size > 1:
            joined = _joined(keys, rows_of_part, below=shift)
            rows_of_part[:] = rows_of_part[_sorted_rows(joined, size)]
        start += size
    return order


def _joined(
    keys: Sequence[_Key], rows: slice | NDArray[np.int64], below: int = _BITS
) -> NDArray[np.int64]:
    """Return one number a row, in the order of the keys; `below`: bits kept of the first key."""
    out = keys[0].block(rows)
    if below < _BITS:
        out &= (1 << below) - 1
    for key in keys[1:]:
        out <<= key.bits
        out |= key.block(rows)
    return out


def _sorted_rows(joined: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    """Return the rows in the order of `joined` (N,), whose memory is used again."""
    row_bits = (num_rows - 1).bit_length()
    joined <<= row_bits
    for rows in _chunks(num_rows):
        joined[rows] |= np.arange(rows.start, rows.stop)
    joined.sort()
    joined &= (1 << row_bits) - 1
    return joined


def _chunks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, _CHUNK):
        yield slice(start, min(start + _CHUNK, num_rows))
