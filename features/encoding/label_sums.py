"""Labels summed up by value: how many training rows hold a value, and how many are positive.

A value is a 64-bit hash, of a feature or of several together. Rows count by their weights. What
a training row may be told of its own value leaves out its own label: it comes from the rows of
other folds (`LabelSums.outside`), or from those that are strictly earlier (`earlier`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.encoding.hashing import splitmix64

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_VALUES = 50_000_000
"""Distinct values, a fold, that are summed up; more are refused."""
_PENDING = 1 << 20
_FOLD_SEED = np.uint64(0x666F6C64666F6C64)
_NOTHING = 1e-9
"""Share of a sum below which what is left of it is an error of rounding."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of the values of N rows.

    positives, rows (N,): weights of the positive rows and of all rows with the row's value.
    all_positives, all_rows (N,): the same of all rows that count for the row, whatever their value.
    """

    positives: Floats
    rows: Floats
    all_positives: Floats
    all_rows: Floats


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Sums over all training rows: hashes (K,) int64 ascending; positives, rows (K,)."""

    hashes: Integers
    positives: Floats
    rows: Floats

    def of(self, values: Integers) -> Seen:
        """Return what the training rows say of `values` (N,)."""
        places, there = _places(self.hashes, values)
        positives, rows = np.append(self.positives, 0.0), np.append(self.rows, 0.0)
        places = np.where(there, places, len(self.hashes))
        ones = np.ones(len(values))
        return Seen(
            positives[places], rows[places], ones * self.positives.sum(), ones * self.rows.sum()
        )


class LabelSums:
    """Sums labels by value and fold, batch by batch: 32 bytes a distinct value and fold."""

    def __init__(self, feature: str, folds: int) -> None:
        """Begin without a row.

        Args:
            feature: named in messages.
            folds: into which rows are parted; 0 or 1: they are not.
        """
        self.folds = max(folds, 1)
        self._feature = feature
        self._hashes, self._fold = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._sums = np.zeros((0, 2))
        self._pending: list[tuple[Integers, Integers, Floats]] = []

    def add(
        self,
        values: Integers,
        row: Integers,
        label: NDArray[np.float32],
        weight: NDArray[np.float32],
    ) -> None:
        """Add rows (N,) of a log, `row` their numbers in it.

        Raises:
            ConfigError: there are more distinct values than can be kept.
        """
        self._pending.append(_summed(values, folds_of(row, self.folds), _weighed(label, weight)))
        waiting = sum(len(one[0]) for one in self._pending)
        if waiting > max(_PENDING, len(self._hashes) // 4):
            self._merge()

    def table(self) -> LabelTable:
        """Return the sums over all folds."""
        self._merge()
        starts = np.flatnonzero(np.append(True, self._hashes[1:] != self._hashes[:-1]))
        if not len(self._hashes):
            return LabelTable(self._hashes, np.zeros(0), np.zeros(0))
        sums = np.add.reduceat(self._sums, starts)
        return LabelTable(self._hashes[starts], sums[:, 0].copy(), sums[:, 1].copy())

    def outside(self) -> "OtherFolds":
        """Return what a training row sees: the sums over the folds that it is not in."""
        return OtherFolds(self.table(), self._hashes, self._fold, self._sums, self.folds)

    def _merge(self) -> None:
        parts = [(self._hashes, self._fold, self._sums), *self._pending]
        joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        self._pending = []
        self._hashes, self._fold, self._sums = _summed(joined[0], joined[1], joined[2])
        if len(self._hashes) > MOST_VALUES:
            raise ConfigError(
                f"feature '{self._feature}': the training rows hold more than {MOST_VALUES:,} "
                "combinations of its values, too many to remember: leave it out, or name features "
                "of fewer values in `of`"
            )


class OtherFolds:
    """Sums over the training rows of the folds that a row is not in."""

    def __init__(
        self, table: LabelTable, hashes: Integers, fold: Integers, sums: Floats, folds: int
    ) -> None:
        """Get ready; hashes, fold (M,) and sums (M, 2) are those of `LabelSums`."""
        self._table, self._folds = table, folds
        self._keys = np.searchsorted(table.hashes, hashes) * folds + fold
        self._sums = np.append(sums, np.zeros((1, 2)), axis=0)
        self._of_fold = np.zeros((folds, 2))
        np.add.at(self._of_fold, fold, sums)

    def of(self, values: Integers, row: Integers) -> Seen:
        """Return what the training rows `row` (N,) of the log, with `values` (N,), may see."""
        fold, whole = folds_of(row, self._folds), self._table.of(values)
        key = np.searchsorted(self._table.hashes, values) * self._folds + fold
        places, there = _places(self._keys, key)
        own = self._sums[np.where(there, places, len(self._keys))]
        every = self._of_fold[fold]
        return Seen(
            _less(whole.positives, own[:, 0]),
            _less(whole.rows, own[:, 1]),
            _less(whole.all_positives, every[:, 0]),
            _less(whole.all_rows, every[:, 1]),
        )


def folds_of(row: Integers, folds: int) -> Integers:
    """Return the fold of each row (N,) of a log: a function of its number alone."""
    mixed = splitmix64(row.astype(np.int64).view(np.uint64) ^ _FOLD_SEED)
    return (mixed % np.uint64(folds)).astype(np.int64)


def earlier(
    values: Integers,
    time: Integers,
    label: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> Seen:
    """Return what each of N rows is told by those of a strictly earlier time."""
    sums = _weighed(label, weight)
    every = _before(np.zeros(len(values), np.int64), time, sums)
    own = _before(values, time, sums)
    return Seen(own[:, 0], own[:, 1], every[:, 0], every[:, 1])


def _weighed(label: NDArray[np.float32], weight: NDArray[np.float32]) -> Floats:
    """Return how much each row counts as positive and at all, (N, 2)."""
    rows = weight.astype(np.float64)
    return np.stack([rows * (label > 0), rows], axis=1)


def _before(values: Integers, time: Integers, sums: Floats) -> Floats:
    """Return the sums (N, 2) over the rows of each row's value with an earlier time."""
    found = np.zeros_like(sums)
    if not len(values):
        return found
    order = np.lexsort((time, values))
    value, instant = values[order], time[order]
    until = np.append(np.zeros((1, 2)), np.cumsum(sums[order], axis=0), axis=0)
    new_value = np.append(True, value[1:] != value[:-1])
    new_instant = new_value | np.append(True, instant[1:] != instant[:-1])
    at = np.arange(len(values))
    first = np.maximum.accumulate(np.where(new_value, at, 0))
    here = np.maximum.accumulate(np.where(new_instant, at, 0))
    found[order] = until[here] - until[first]
    return found


class Running:
    """Tells the rows of a log that is read in the order of its time what came before each."""

    def __init__(self, hashes: Integers) -> None:
        """Begin before the first row; hashes (K,): all values, ascending."""
        self._hashes = hashes
        self._known = np.zeros((len(hashes), 2))
        self._every = np.zeros(2)
        self._instant = np.iinfo(np.int64).min
        self._waiting: list[tuple[Integers, Floats]] = []

    def add(
        self,
        values: Integers,
        time: Integers,
        label: NDArray[np.float32],
        weight: NDArray[np.float32],
    ) -> Seen:
        """Return what rows (N,) with a `time` that never falls are told, and remember them.

        Raises:
            ValueError: a time is before one that came earlier.
        """
        if len(time) and (time[0] < self._instant or (time[1:] < time[:-1]).any()):
            raise ValueError("the rows are not in the order of time")
        codes, sums = np.searchsorted(self._hashes, values), _weighed(label, weight)
        found, every = np.empty_like(sums), np.empty_like(sums)
        same = int(np.searchsorted(time, self._instant, side="right"))
        found[:same], every[:same] = self._known[codes[:same]], self._every
        self._wait(codes[:same], sums[:same])
        if same < len(time):
            self._remember()
            later = slice(same, None)
            before = earlier(codes[later], time[later], label[later], weight[later])
            own = np.stack([before.positives, before.rows], axis=1)
            of_all = np.stack([before.all_positives, before.all_rows], axis=1)
            found[later] = self._known[codes[later]] + own
            every[later] = self._every + of_all
            self._instant = int(time[-1])
            last = max(int(np.searchsorted(time, self._instant)), same)
            self._wait(codes[same:last], sums[same:last])
            self._remember()
            self._wait(codes[last:], sums[last:])
        return Seen(found[:, 0], found[:, 1], every[:, 0], every[:, 1])

    def _wait(self, codes: Integers, sums: Floats) -> None:
        """Keep rows of one instant until it is over, summed up once they are many."""
        self._waiting.append((codes, sums))
        if sum(len(one) for one, _ in self._waiting) > max(_PENDING, 2 * len(self._hashes)):
            joined = [np.concatenate(arrays) for arrays in zip(*self._waiting, strict=True)]
            summed = _summed(joined[0], np.zeros(len(joined[0]), np.int64), joined[1])
            self._waiting = [(summed[0], summed[2])]

    def _remember(self) -> None:
        for codes, sums in self._waiting:
            np.add.at(self._known, codes, sums)
            self._every += sums.sum(axis=0)
        self._waiting = []


def _summed(values: Integers, fold: Integers, sums: Floats) -> tuple[Integers, Integers, Floats]:
    """Return the distinct pairs of value and fold, ascending, each with its sums."""
    if not len(values):
        return values, fold, sums
    order = np.lexsort((fold, values))
    values, fold, sums = values[order], fold[order], sums[order]
    new = (values[1:] != values[:-1]) | (fold[1:] != fold[:-1])
    starts = np.flatnonzero(np.append(True, new))
    return values[starts], fold[starts], np.add.reduceat(sums, starts)


def _places(among: Integers, values: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """Return where `values` (N,) are in `among`, which ascends, and whether they are there."""
    places = np.searchsorted(among, values)
    there = places < len(among)
    there[there] = among[places[there]] == values[there]
    return places, there


def _less(whole: Floats, part: Floats) -> Floats:
    """Return `whole` without `part`: nothing where rounding alone is left."""
    left = whole - part
    return np.where(left > _NOTHING * whole, left, 0.0)
