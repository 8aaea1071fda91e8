"""Rows of the catalogue by item id: what a few ids cost does not grow with the catalogue.

Arrow's `index_in` hashes the whole catalogue at each call, which is quick for many ids and most of
a single request's time for few. For few ids the catalogue's hashes are sorted once; what they point
at is compared with the ids themselves, so that the answer is that of `index_in` in any case.
"""

import weakref
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.encoding.hashing import hash_values

_FEW = 64
"""A share of the catalogue, one of so many, up to which ids are few."""
_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Sorted:
    """hashes (n,) of the catalogue, rising; rows (n,) whose they are."""

    hashes: _Ints
    rows: _Ints


_made: dict[int, tuple["weakref.ref[pa.Array]", _Sorted | None]] = {}


def rows_of_items(values: pa.Array, item_ids: pa.Array) -> _Ints:
    """Return the row of each id, (T,) int64, -1 for null and what the catalogue lacks.

    Args:
        values: (T,) ids of the type of the catalogue's.
        item_ids: (n,) of the catalogue, each once.
    """
    if not len(values):
        return np.zeros(0, np.int64)
    few = len(values) * _FEW <= len(item_ids)
    known = _sorted_of(item_ids) if few else None
    if known is None:
        return np.asarray(pc.index_in(values, item_ids).fill_null(-1), np.int64)
    hashed = hash_values(values)
    at = np.searchsorted(known.hashes, hashed).clip(max=len(item_ids) - 1)
    rows = known.rows[at]
    same = pc.equal(item_ids.take(pa.array(rows)), values).fill_null(False)
    return np.where(np.asarray(same), rows, -1)


def _sorted_of(item_ids: pa.Array) -> _Sorted | None:
    """Return the hashes of a catalogue, made once; None: two ids share one."""
    key = id(item_ids)
    found = _made.get(key)
    if found is None or found[0]() is not item_ids:
        hashed = hash_values(item_ids)
        order = np.argsort(hashed, kind="stable")
        alike = len(distinct(hashed)) != len(hashed)
        made = None if alike else _Sorted(hashed[order], order)
        gone = weakref.ref(item_ids, lambda _: _made.pop(key, None))
        found = _made[key] = (gone, made)
    return found[1]
