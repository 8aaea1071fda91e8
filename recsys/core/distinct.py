"""Distinct values of arrays: which there are, how often, where first; membership among them.

What `np.unique` and `np.isin` answer, with the same results, by sorting: NumPy 2.4 hashes large
arrays of numbers to find their distinct values, at up to a hundred times the cost. Whole numbers of
a narrow range, as row numbers are, need no sorting: a table with a place for each answers.

Arrays here have one axis, and any type that can be sorted. As in NumPy, NaN is one distinct value,
the last, and not among any values.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_NARROW = 4  # places of a table a value; more would cost more than sorting
_FEW = 1 << 14  # values that a search finds its way among without missing the cache


def distinct(values: NDArray[T]) -> NDArray[T]:
    """Return the distinct values of (N,), ascending."""
    ordered = np.sort(values)
    return ordered[_starts(ordered)]


def distinct_counts(values: NDArray[T]) -> tuple[NDArray[T], NDArray[np.int64]]:
    """Return the distinct values of (N,), ascending, and how often each occurs."""
    ordered = np.sort(values)
    starts = np.flatnonzero(_starts(ordered))
    return ordered[starts], np.diff(starts, append=len(values))


def distinct_codes(values: NDArray[T]) -> tuple[NDArray[T], NDArray[np.int64]]:
    """Return the distinct values of (N,), ascending, and each value's place among them, (N,)."""
    places = _places(values)
    if places is not None:
        offsets, size, _ = places
        there = np.zeros(size, bool)
        there[offsets] = True
        # Sums of a narrow type that overflow come round to the right value.
        found = np.flatnonzero(there).astype(values.dtype) + values.min()
        return found, (np.cumsum(there) - 1)[offsets]
    order = np.argsort(values)
    ordered = values[order]
    starts = _starts(ordered)
    codes = np.empty(len(values), np.int64)
    codes[order] = np.cumsum(starts) - 1
    return ordered[starts], codes


def first_places(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each distinct value of (N,) occurs first, in ascending order of the values."""
    places = _places(values)
    if places is not None:
        offsets, size, _ = places
        first = np.full(size, -1)
        first[offsets[::-1]] = np.arange(len(values))[::-1]  # the last assignment stays
        return first[first >= 0]
    order = np.argsort(values, kind="stable")
    return order[_starts(values[order])]


def is_among(values: NDArray[T], known: NDArray[T]) -> NDArray[np.bool_]:
    """Return which of the values (N,) are among the known ones (M,), in any order, (N,).

    Raises:
        TypeError: signed against unsigned numbers, which compare as floats, not exactly.
    """
    if {values.dtype.kind, known.dtype.kind} == {"i", "u"}:
        raise TypeError(f"cannot look {values.dtype} values up among {known.dtype} ones exactly")
    if not len(known):
        return np.zeros(len(values), bool)
    places = _places(known, most=len(known) + len(values))
    if places is not None and values.dtype.kind == known.dtype.kind:
        offsets, size, low = places
        there = np.zeros(size, bool)
        there[offsets] = True
        inside = (values >= known.min()) & (values <= known.max())
        return inside & there[np.where(inside, _minus(values, low), 0)]
    sought = distinct(known)
    if len(sought) <= _FEW:
        return sought[np.minimum(np.searchsorted(sought, values), len(sought) - 1)] == values
    order = np.argsort(values)  # neighbours are then found near each other
    ordered = values[order]
    found = np.empty(len(values), bool)
    found[order] = sought[np.minimum(np.searchsorted(sought, ordered), len(sought) - 1)] == ordered
    return found


def _starts(ordered: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each of the ordered values (N,) is the first of its kind."""
    starts = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    if ordered.dtype.kind == "f":
        # NaN differs from itself, and all of them are at the end.
        starts[np.searchsorted(ordered, np.nan) + 1 :] = False
    return starts


def _places(
    values: NDArray[Any], most: int | None = None
) -> tuple[NDArray[np.int64], int, int] | None:
    """Return the place of each value in a table (N,), the table's size and its first value.

    None where they are no whole numbers, or too far apart for a table of 4 places for each of
    `most` (default: the number of values).
    """
    if values.dtype.kind not in "iu" or not len(values):
        return None
    low, high = int(values.min()), int(values.max())
    size = high - low + 1
    if size > _NARROW * (len(values) if most is None else most):
        return None
    return _minus(values, low), size, low


def _minus(values: NDArray[Any], low: int) -> NDArray[np.int64]:
    if values.dtype.kind == "u":  # may be above what int64 holds
        return (values - values.dtype.type(low)).astype(np.int64)
    return values.astype(np.int64) - low
