"""The rows of a relation by owner and time, and numbers over those in windows before instants.

Rows are sorted by (owner, rank of the time, value). A window of span w before an instant t holds
the rows of an owner with t - w <= time < t, so one binary search for each end finds it: neither
the row that asks nor a simultaneous one is in it. Numbers come from running totals that start
anew at each owner: a row at or after t changes no bit of them.

N windows are asked for, R rows are there.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct, distinct_codes

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
_CELLS = 1 << 22


class Windows(NamedTuple):
    """(N,) int64 each: where the owner's rows begin, where the window begins, and where it ends."""

    first: Integers
    start: Integers
    end: Integers

    @property
    def sizes(self) -> Integers:
        """Rows in each window, (N,)."""
        return self.end - self.start


class Timeline:
    """Rows of a relation, sorted; time and value (R,) are in that order."""

    def __init__(
        self, owner: Integers, time: Integers, value: Floats | Integers | None = None
    ) -> None:
        """Sort the rows.

        Args:
            owner: (R,) from 0; those below 0 belong to nobody and are left out.
            time: (R,) microseconds.
            value: (R,) without NaN; of rows at one time the smallest is the first, so that the
                order of the files changes nothing.
        """
        owned = owner >= 0
        owner, time = owner[owned], time[owned]
        self._times, ranks = distinct_codes(time)
        self._span = np.int64(len(self._times) + 1)
        keys = owner * self._span + ranks
        order = np.argsort(keys)
        self._keys, self.time, self._value = keys[order], time[order], None
        if value is not None:
            self._value = _sorted_ties(self._keys, value[owned][order])

    @property
    def value(self) -> Floats | Integers:
        """The values of the rows."""
        assert self._value is not None
        return self._value

    def windows(self, owner: Integers, time: Integers, span: int | None) -> Windows:
        """Return the window before each instant.

        Args:
            owner: (N,); below 0 has no rows.
            time: (N,) microseconds.
            span: length in microseconds; None: all before.
        """
        first = _search(self._keys, owner * self._span)
        end = self._places(owner, time)
        start = first if span is None else self._places(owner, time - span)
        return Windows(first, start, end)

    def _places(self, owner: Integers, time: Integers) -> Integers:
        return _search(self._keys, owner * self._span + _search(self._times, time))

    def sums(self, windows: Windows) -> Floats:
        """Return the sum of the values in each window, (N,); 0 where it is empty."""
        totals = np.append(self._running, 0.0)
        until = np.where(windows.end > windows.first, totals[windows.end - 1], 0.0)
        before = np.where(windows.start > windows.first, totals[windows.start - 1], 0.0)
        return np.where(windows.sizes > 0, until - before, 0.0)

    def last(self, windows: Windows) -> Floats:
        """Return the value of the last row in each window, (N,); NaN where it is empty."""
        values = np.append(self.value.astype(np.float64), np.nan)
        return np.where(windows.sizes > 0, values[windows.end - 1], np.nan)

    def since(self, windows: Windows, time: Integers) -> Floats:
        """Return the seconds from the last row in each window to `time`, (N,); NaN where empty."""
        times = np.append(self.time, 0)
        return np.where(windows.sizes > 0, (time - times[windows.end - 1]) / 1e6, np.nan)

    def distinct(self, windows: Windows) -> Integers:
        """Return how many distinct values each window holds, (N,).

        A value counts at its first place in the window: where the one before it is further back.
        """
        return _count_below(self._previous, windows.start, windows.end, windows.start + 1)

    @cached_property
    def _owner(self) -> Integers:
        return self._keys // self._span

    @cached_property
    def _running(self) -> Floats:
        """The sum of the owner's values up to each row, (R,), added one after the other."""
        values = self.value.astype(np.float64)
        totals = np.empty(len(values))
        new = np.append(True, self._owner[1:] != self._owner[:-1])[: len(values)]
        starts = np.flatnonzero(new)
        lengths = np.diff(starts, append=len(values))
        widths = np.int64(1) << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
        for width in distinct(widths).tolist():
            owners = np.flatnonzero(widths == width)
            step = max(1, _CELLS // width)
            for at in range(0, len(owners), step):
                some = owners[at : at + step]
                inside = np.arange(width) < lengths[some, None]
                places = (starts[some, None] + np.arange(width))[inside]
                padded = np.zeros((len(some), width))
                padded[inside] = values[places]
                totals[places] = np.cumsum(padded, axis=1)[inside]
        return totals

    @cached_property
    def _previous(self) -> Integers:
        """1 + the place of the owner's row before with the same value, (R,); 0 where none is."""
        found = np.zeros(len(self.value), np.int64)
        order = np.lexsort((self.value, self._owner))
        value, owner = self.value[order], self._owner[order]
        again = (value[1:] == value[:-1]) & (owner[1:] == owner[:-1])
        found[order[1:][again]] = order[:-1][again] + 1
        return found


def _search(ordered: Integers, wanted: Integers) -> Integers:
    """Return where each of `wanted` (N,) belongs; asked in ascending order, which caches like."""
    order = np.argsort(wanted)
    found = np.empty(len(wanted), np.int64)
    found[order] = np.searchsorted(ordered, wanted[order])
    return found


def _sorted_ties(keys: Integers, value: NDArray[Any]) -> NDArray[Any]:
    """Return the values (R,) of ordered keys, ascending where keys are equal."""
    same = keys[1:] == keys[:-1]
    tied = np.flatnonzero(np.append(same, False)[: len(keys)] | np.append(False, same)[: len(keys)])
    value[tied] = value[tied[np.lexsort((value[tied], keys[tied]))]]
    return value


def _count_below(values: Integers, start: Integers, end: Integers, limit: Integers) -> Integers:
    """Return how many of values[start[n]:end[n]] are below limit[n], (N,).

    Bit by bit from the highest, the values in the order of the bits before (a wavelet matrix:
    Claude et al., "The wavelet matrix", Information Systems 47, 2015, section 4), so the work grows
    with R + N and not with the windows. `values` (R,) are from 0; limits are positive.
    """
    count = np.zeros(len(start), np.int64)
    most = max(int(values.max(initial=0)), int(limit.max(initial=0)))
    for bit in range(most.bit_length() - 1, -1, -1):
        ones = (values >> bit) & 1
        zeros = np.concatenate([[0], np.cumsum(1 - ones)])
        start_0, end_0 = zeros[start], zeros[end]
        goes = ((limit >> bit) & 1).astype(bool)
        count += np.where(goes, end_0 - start_0, 0)
        start = np.where(goes, zeros[-1] + start - start_0, start_0)
        end = np.where(goes, zeros[-1] + end - end_0, end_0)
        values = np.concatenate([values[ones == 0], values[ones == 1]])
    return count
