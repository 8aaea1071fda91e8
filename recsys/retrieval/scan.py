"""Products of queries with items that are compared in registers (`scan.cc`), on a processor.

Nothing here decides what is among the best: `recsys.retrieval.topk` and `recsys.retrieval.screen`
do, with bounds that hold for sums in any order, and from torch's products where there is no
compiler.

Shape letters: B queries, N items, E width, T items of a tile.
"""

import ctypes
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.native import native_library
from recsys.retrieval.pairs import Floats, Ints

SOURCE = Path(__file__).with_suffix(".cc")
LANES = 16
"""Items that share a maximum, and queries that are multiplied together."""
MOST_ALONE = 3
"""Queries that are multiplied one by one with each item."""
LIMIT = 1e18
"""Norms of this and more are refused: their scores could overflow."""
_LONG, _TENSOR = ctypes.c_int64, ctypes.c_void_p


def can_fold() -> bool:
    """Whether `folded_maxima` runs here: with a compiler."""
    return native_library(SOURCE) is not None


def can_multiply_bytes() -> bool:
    """Whether `ByteQueries` run here: with a compiler, on a processor with AVX-512 VNNI."""
    return hasattr(native_library(SOURCE), "pairs_above")


def folded_maxima(queries: Tensor, items: Tensor, *, norms: bool) -> tuple[Floats, float | None]:
    """Return the best score of each query in every `LANES` rows, and the largest norm of an item.

    Args:
        queries: (B, E) float32, contiguous.
        items: (N, E) float32, contiguous, read once.
        norms: whether to look at the norms of the items.

    Returns:
        maxima (B, ceil(N / LANES)); the norm is 0 where it was not looked at, None where one is
        `LIMIT` or more, or NaN.
    """
    library = native_library(SOURCE)
    assert library is not None
    library.folded_maxima.restype = ctypes.c_float
    num_queries, num_items, width = len(queries), *items.shape
    alone = num_queries <= MOST_ALONE
    groups = -num_queries if alone else -(-num_queries // LANES)
    packed = queries if alone else _in_lanes(queries, groups)
    maxima = torch.empty(-(-num_items // LANES), num_queries if alone else groups * LANES)
    square = library.folded_maxima(
        _TENSOR(items.data_ptr()),
        _LONG(num_items),
        _LONG(width),
        _TENSOR(packed.data_ptr()),
        _LONG(groups),
        ctypes.c_float(LIMIT**2 if norms else float("inf")),
        _TENSOR(maxima.data_ptr()),
    )
    by_query = np.ascontiguousarray(maxima.T[:num_queries].numpy())
    return by_query, None if square < 0 else float(square**0.5)


class ByteQueries:
    """Queries (B, E) int8 that are multiplied with tiles of items; B at most 65,536."""

    def __init__(self, queries: Tensor) -> None:
        """Take queries whose E is a multiple of 4."""
        groups = -(-len(queries) // LANES)
        padded = torch.zeros(groups * LANES, queries.shape[1], dtype=torch.int16)
        padded[: len(queries)] = queries
        four = (padded + 128).to(torch.uint8).view(groups, LANES, -1, 4)
        self._packed = four.transpose(1, 2).contiguous()
        self._count, self._groups = len(queries), groups

    def pairs_above(
        self, tiles: list[tuple[int, Tensor, Tensor]], least: NDArray[np.int32], space: int
    ) -> tuple[NDArray[np.uint16], Ints] | None:
        """Return query (S,) and position (S,) of the pairs whose product is not below a limit.

        Args:
            tiles: the position of the first item of each tile, its items (T, E) int8, and -128
                times the sum of each, (T,) int32.
            least: (tiles, B) what a product of the tile has to be.
            space: None is returned where there are so many pairs, or more.
        """
        library = native_library(SOURCE)
        assert library is not None
        library.pairs_above.restype = _LONG
        query, position = np.empty(space, np.uint16), np.empty(space, np.int64)
        limits = np.full(self._groups * LANES, np.iinfo(np.int32).max, np.int32)
        count = 0
        for (first, items, shift), lowest in zip(tiles, least, strict=True):
            limits[: self._count] = lowest
            count = library.pairs_above(
                _TENSOR(items.data_ptr()),
                _TENSOR(shift.data_ptr()),
                _LONG(len(items)),
                _LONG(items.shape[1]),
                _TENSOR(self._packed.data_ptr()),
                _LONG(self._groups),
                _TENSOR(limits.ctypes.data),
                _LONG(first),
                _TENSOR(query.ctypes.data),
                _TENSOR(position.ctypes.data),
                _LONG(count),
                _LONG(space),
            )
            if count >= space:
                return None
        return query[:count], position[:count]


def _in_lanes(queries: Tensor, groups: int) -> Tensor:
    """Return queries as (groups, E, LANES), zeros behind the last."""
    padded = torch.zeros(groups * LANES, queries.shape[1])
    padded[: len(queries)] = queries
    return padded.view(groups, LANES, -1).transpose(1, 2).contiguous()
