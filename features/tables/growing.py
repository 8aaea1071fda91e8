"""A NumPy array that grows by appending, without a second copy of the whole."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_FIRST = 1 << 16


class GrowingRows:
    """Ascending row numbers that grow by appending; while none is left out, they take no memory."""

    def __init__(self) -> None:
        self._size = 0
        self._kept: GrowingArray | None = None

    def append(self, part: NDArray[np.int64]) -> None:
        """Add `part` (N,), N > 0, at the end."""
        whole = self._kept is None and part[0] == self._size
        if not (whole and part[-1] - part[0] == len(part) - 1):
            if self._kept is None:
                self._kept = GrowingArray(np.int64)
                self._kept.append(np.arange(self._size))
            self._kept.append(part)
        self._size += len(part)

    def values(self) -> NDArray[np.int64]:
        """Return everything added."""
        return np.arange(self._size) if self._kept is None else self._kept.values()


class GrowingArray:
    """Doubles its space when full; pages of the space that is not yet used cost no memory.

    The space is a mapping of its own, which the system moves as it grows: nothing is copied, and
    all of it goes back when the array is gone.
    """

    def __init__(self, dtype: DTypeLike, *shape: int) -> None:
        self._dtype, self._shape = np.dtype(dtype), shape
        self._bytes_a_row = self._dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._memory = self._mapped(_FIRST)
        self._room = self._viewed()
        self._size = 0

    def append(self, part: NDArray[Any]) -> None:
        """Add `part` (N, *shape) at the end."""
        end = self._size + len(part)
        if end > len(self._room):
            self._grow(max(end, 2 * len(self._room)))
        self._room[self._size : end] = part
        self._size = end

    def values(self) -> NDArray[Any]:
        """Return everything added, a view."""
        return self._room[: self._size]

    def _grow(self, rows: int) -> None:
        self._room = self._room[:0].copy()  # a mapping with a view is not resized
        try:
            self._memory.resize(rows * self._bytes_a_row)
        except (BufferError, SystemError, OSError):  # a view was handed out; not on this system
            before, self._memory = self._memory, self._mapped(rows)
            self._room = self._viewed()
            self._room[: self._size] = np.frombuffer(
                before, self._dtype, self._size * self._bytes_a_row // self._dtype.itemsize
            ).reshape(-1, *self._shape)
        else:
            self._room = self._viewed()

    def _mapped(self, rows: int) -> mmap.mmap:
        size = max(rows * self._bytes_a_row, 1)
        if not hasattr(mmap, "MAP_ANONYMOUS"):
            return mmap.mmap(-1, size)
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _viewed(self) -> NDArray[Any]:
        rows = len(self._memory) // max(self._bytes_a_row, 1)
        flat = np.frombuffer(
            self._memory, self._dtype, rows * self._bytes_a_row // self._dtype.itemsize
        )
        return flat.reshape(-1, *self._shape)
