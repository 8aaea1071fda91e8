"""A NumPy array that grows by appending, without a second copy of the whole at the end."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_FIRST = 1 << 16


class GrowingArray:
    """Doubles its space when full; pages of the space that is not yet used cost no memory."""

    def __init__(self, dtype: DTypeLike, *shape: int) -> None:
        self._room: NDArray[Any] = np.empty((_FIRST, *shape), dtype)
        self._size = 0

    def append(self, part: NDArray[Any]) -> None:
        """Add `part` (N, *shape) at the end."""
        end = self._size + len(part)
        if end > len(self._room):
            size = max(end, 2 * len(self._room))
            room = np.empty((size, *self._room.shape[1:]), self._room.dtype)
            room[: self._size] = self._room[: self._size]
            self._room = room
        self._room[self._size : end] = part
        self._size = end

    def values(self) -> NDArray[Any]:
        """Return everything added, a view."""
        return self._room[: self._size]
