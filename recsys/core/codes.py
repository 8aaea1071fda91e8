"""Codes: whole numbers from 0 that stand for rows of a table, worked on a million at a time.

NumPy makes a 64-bit copy of every array that it indexes with or counts; of a log's codes it would
be twice the size of the codes.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_AT_A_TIME = 1 << 20
T = TypeVar("T", bound=np.generic)


def counts_of(
    codes: NDArray[np.integer[Any]], size: int, chosen: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return how often each code below `size` is among (N,) codes, or those that are chosen."""
    counts = np.zeros(size, np.int64)
    for rows in _slices(len(codes)):
        part = codes[rows] if chosen is None else codes[rows][chosen[rows]]
        counts += np.bincount(part, minlength=size)
    return counts


def looked_up(values: NDArray[T], codes: NDArray[np.integer[Any]]) -> NDArray[T]:
    """Return `values[codes]`, (N,)."""
    out = np.empty(len(codes), values.dtype)
    for rows in _slices(len(codes)):
        np.take(values, codes[rows], out=out[rows])
    return out


def whole_runs(ordered: NDArray[np.integer[Any]]) -> Iterator[slice]:
    """Yield slices of (N,) ascending codes, about a million rows each, that part no code's rows."""
    start = 0
    while start < len(ordered):
        end = min(start + _AT_A_TIME, len(ordered))
        end = int(np.searchsorted(ordered, ordered[end - 1], side="right"))
        yield slice(start, end)
        start = end


def value_at_ranks(values: NDArray[np.int64], ranks: list[int]) -> list[int]:
    """Return the values (N,) that have these ranks, from 0, in ascending order."""
    low, high = int(values.min()), int(values.max())
    if len(values) <= _AT_A_TIME or high - low >= np.iinfo(np.int64).max:
        return [int(one) for one in np.partition(values, ranks)[ranks]]
    width = (high - low) // 0xFFFF + 1

    def bins() -> Iterator[tuple[slice, NDArray[np.int64]]]:
        for rows in _slices(len(values)):
            yield rows, (values[rows] - low) // width

    counts = np.zeros(1 << 16, np.int64)
    for _, found in bins():
        counts += np.bincount(found, minlength=1 << 16)
    ends = np.cumsum(counts)
    wanted = np.searchsorted(ends, ranks, side="right")
    parts: dict[int, list[NDArray[np.int64]]] = {one: [] for one in wanted.tolist()}
    for rows, found in bins():
        for one, inside in parts.items():
            inside.append(values[rows][found == one])
    ordered = {one: np.sort(np.concatenate(inside)) for one, inside in parts.items()}
    starts = ends - counts
    return [
        int(ordered[one][rank - starts[one]])
        for one, rank in zip(wanted.tolist(), ranks, strict=True)
    ]


def _slices(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, _AT_A_TIME):
        yield slice(start, start + _AT_A_TIME)
