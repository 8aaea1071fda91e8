"""What the loaders of retrieval share: distinct items, ranks' shares, absent contexts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, Jagged

with on_first_use():
    import torch
    from torch import Tensor


def distinct_rows(
    candidates: NDArray[np.int64], others: NDArray[np.int64], num_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return distinct item rows (U,), candidates first, and where each item is there.

    The second is (num_items,), -1 for an item that is not.
    """
    slot = np.full(num_items, -1, np.int64)
    slot[candidates] = np.arange(len(candidates))
    extra = distinct(others[slot[others] < 0])
    slot[extra] = len(candidates) + np.arange(len(extra))
    return np.concatenate([candidates, extra]), slot


def share_of(count: int, rank: int, world: int) -> slice:
    """Return the rows of a rank: contiguous, all of ceil(count / world) but the last ones."""
    step = -(-count // world)
    return slice(rank * step, (rank + 1) * step)


def with_absent(block: FeatureBlock, absent: FeatureBlock, drop: NDArray[np.bool_]) -> FeatureBlock:
    """Return `block` with the one row of `absent` where `drop` (N,) holds."""
    columns = block.single.shape[1] + len(block.multi) + block.dense.shape[1]
    if not columns or not drop.any():
        return block
    dropped = torch.from_numpy(drop)
    single, dense = block.single.clone(), block.dense.clone()
    single[dropped], dense[dropped] = absent.single, absent.dense
    multi = zip(block.multi, absent.multi, strict=True)
    return FeatureBlock(single, tuple(_replaced(*two, dropped) for two in multi), dense)


def _replaced(jagged: Jagged, one: Jagged, rows: Tensor) -> Jagged:
    """Return `jagged` with the single row of `one` at `rows` (N,) bool."""
    return jagged.above(one).take(torch.where(rows, len(jagged), torch.arange(len(jagged))))
