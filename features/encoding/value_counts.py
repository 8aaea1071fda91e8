"""How many training rows hold each value of a feature, and which values enough rows hold.

Values are counted by their hashes, exactly: 16 bytes a distinct value of a feature, and for a
moment, while counts are merged, some 80. How many rows there are does not matter.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.encoding.hashing import NULL_HASH, hash_values
from recsys.features.kinds.feature import Feature

MOST_VALUES = 50_000_000
"""Distinct values of a feature that are counted; more are refused."""
_PENDING = 1 << 20


class ValueCounts:
    """Counts the rows of each value of `feature`, batch by batch."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._values = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, column: Any, times: NDArray[np.int64] | None = None) -> None:
        """Count the rows of `column`; row n stands for `times[n]` rows, None: for one each.

        Raises:
            ConfigError: there are more distinct values than can be counted.
        """
        rows, hashes = _values_of(self._feature, column)
        if len(hashes) == 0:
            return
        weights = np.ones(len(hashes), np.int64) if times is None else times[rows]
        self._pending.append(_summed(hashes, weights))
        waiting = sum(len(values) for values, _ in self._pending)
        if waiting > max(_PENDING, len(self._values) // 4):
            self._merge()

    @classmethod
    def counted(
        cls, feature: Feature, values: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> "ValueCounts":
        """Return what was counted elsewhere: the hashes of values (K,), each once, and counts."""
        found = cls(feature)
        found._pending.append(_summed(values, counts))
        return found

    def of_each(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the hashes of all values (K,), ascending, and how many rows hold each."""
        self._merge()
        return self._values, self._counts

    def at_least(self, count: int) -> NDArray[np.int64]:
        """Return the hashes of the values that at least `count` rows hold, ascending."""
        self._merge()
        return self._values[self._counts >= count]

    def _merge(self) -> None:
        parts = [(self._values, self._counts), *self._pending]
        values, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        del parts
        self._values = self._counts = np.zeros(0, np.int64)
        self._pending = []
        self._values, self._counts = _summed(values, counts)
        if len(self._values) > MOST_VALUES:
            raise ConfigError(
                f"feature '{self._feature.name}' has more than {MOST_VALUES:,} distinct values, "
                "too many to count for min_count: leave min_count out, and the table shares its "
                "rows among all of them"
            )


def _values_of(feature: Feature, column: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and hash of every value that is not null, each value of a row once."""
    rows, values = feature.rows_and_values(column)
    if pa.types.is_null(values.type):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    hashes = hash_values(values)
    known = hashes != NULL_HASH
    rows, hashes = rows[known], hashes[known]
    if not feature.has_several:
        return rows, hashes
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    again = np.zeros(len(rows), bool)
    again[1:] = (rows[1:] == rows[:-1]) & (hashes[1:] == hashes[:-1])
    return rows[~again], hashes[~again]


def _summed(
    values: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct values, ascending, each with the sum of its counts."""
    if len(values) == 0:
        return values, counts
    # What was merged before is sorted already, which a stable sort makes use of.
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[starts], np.add.reduceat(counts, starts)
