"""Batches of an encoded click log, a pure function of (seed, epoch, step).

A shuffle that reads the disk in large pieces: the training rows are cut into blocks, the blocks
are put in a random order, consecutive blocks form windows, and the rows of a window are put in a
random order. A part that fits into one window is shuffled uniformly. Every row is seen once an
epoch; batches run across windows, and only the last one is short.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.batch import FeatureBlock, Jagged, RankingBatch
from recsys.features.batches.pairs import prefetch
from recsys.features.clicks.log import ClickLog
from recsys.features.clicks.store import PartFiles, Range, take_rows
from recsys.features.dataset.split import TRAIN

_BLOCK_ROWS = 8192


class ClickLoader:
    """Draws `RankingBatch`es from the training rows of a click log."""

    def __init__(
        self,
        log: ClickLog,
        *,
        batch_size: int,
        seed: int,
        window_rows: int = 1 << 19,
        block_rows: int = _BLOCK_ROWS,
    ) -> None:
        if batch_size < 1 or block_rows < 1 or window_rows < block_rows:
            raise ValueError(
                f"batch_size {batch_size} and block_rows {block_rows} must be at least 1, and "
                f"window_rows {window_rows} at least block_rows"
            )
        self.log = log
        self.batch_size = batch_size
        self.seed = seed
        self._block_rows = block_rows
        self._window_blocks = window_rows // block_rows

    @property
    def num_rows(self) -> int:
        """Training rows, each seen once an epoch."""
        return self.log.num_rows(TRAIN)

    @property
    def num_steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-self.num_rows // self.batch_size)

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield the batches of `epoch` from `first_step` on, made ahead in one thread.

        Of `world` ranks each gets the rows rank, rank + world, ... of every batch: all have the
        same number of steps, and where the last batch has fewer rows than ranks, some get none.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of a world of {world}")
        with closing(self._windows(epoch)) as windows:
            yield from prefetch(
                lambda step: self._batch(windows, step, rank, world),
                range(first_step, self.num_steps),
            )

    def ordered(
        self, part: int, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield all rows of `part` in the order of the files, for evaluation.

        Ranks share every batch out as they do in `epoch`.
        """

        def read(step: int) -> RankingBatch:
            batch = self.log.read(part, slice(step * batch_size, (step + 1) * batch_size))
            return batch if world == 1 else take_rows(batch, torch.arange(len(batch))[rank::world])

        yield from prefetch(read, range(-(-self.log.num_rows(part) // batch_size)))

    def users(self, part: int) -> NDArray[np.int64] | None:
        """Return the hash of each row's user; None where no feature is the user's column."""
        user = self.log.schema.interactions.user
        names = [
            feature.name
            for feature in self.log.schema.column_features
            if user and feature.is_key and feature.source_column == user
        ]
        if not names:
            return None
        column = [name for name, _ in self.log.layout.single].index(names[0])
        found = np.empty(self.log.num_rows(part), np.int64)
        for step, batch in enumerate(self.ordered(part, _BLOCK_ROWS)):
            here = slice(step * _BLOCK_ROWS, step * _BLOCK_ROWS + len(batch))
            found[here] = batch.features.single[:, column].numpy()
        return found

    def _batch(self, windows: "_Windows", step: int, rank: int, world: int) -> RankingBatch:
        start = step * self.batch_size
        stop = min(start + self.batch_size, self.num_rows)
        return windows.rows(np.arange(start + rank, stop, world), start)

    def _windows(self, epoch: int) -> "_Windows":
        num_blocks = -(-self.num_rows // self._block_rows)
        blocks = _rng(self.seed, epoch, 0).permutation(num_blocks)
        windows = [
            blocks[first : first + self._window_blocks]
            for first in range(0, num_blocks, self._window_blocks)
        ]
        starts = [[int(block) * self._block_rows for block in window] for window in windows]
        ranges = [
            [(first, min(first + self._block_rows, self.num_rows)) for first in window]
            for window in starts
        ]
        return _Windows(self.log.files(TRAIN), ranges, self.seed, epoch)


class _Windows:
    """The windows of an epoch, one in use and the next one being read."""

    def __init__(self, files: PartFiles, ranges: list[list[Range]], seed: int, epoch: int) -> None:
        self._files, self._ranges, self._seed, self._epoch = files, ranges, seed, epoch
        sizes = [sum(stop - start for start, stop in window) for window in ranges]
        self._begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="windows")
        self._number = -1
        self._current: RankingBatch | None = None
        self._order = np.zeros(0, np.int64)
        self._ahead: tuple[int, Future[RankingBatch]] | None = None

    def close(self) -> None:
        """Wait for what is being read, and forget it."""
        self._reader.shutdown(cancel_futures=True)

    def rows(self, places: NDArray[np.int64], at_least: int) -> RankingBatch:
        """Return the rows at ascending `places` (M,) of the epoch's order, M may be 0.

        `at_least` is a place at or before the first, whose window has no rows.
        """
        first = self._at(int(places[0]) if len(places) else at_least)
        last = self._at(int(places[-1])) if len(places) else first
        pieces = []
        for window in range(first, last + 1):
            begin, end = self._begins[window : window + 2]
            own = places[(places >= begin) & (places < end)] - begin
            current = self._use(window)
            pieces.append(take_rows(current, torch.from_numpy(self._order[own])))
            del current
        return pieces[0] if len(pieces) == 1 else joined(pieces)

    def _at(self, place: int) -> int:
        return int(np.searchsorted(self._begins, place, side="right")) - 1

    def _use(self, window: int) -> RankingBatch:
        """Return `window`, and have the one after it read meanwhile."""
        if self._number != window or self._current is None:
            self._current = None  # frees it before another one is waited for
            number, ahead = self._ahead or (-1, None)
            self._ahead = None
            if ahead is not None and number != window:
                ahead.result()
                ahead = None
            self._current = self._read(window) if ahead is None else ahead.result()
            self._number = window
            size = int(self._begins[window + 1] - self._begins[window])
            self._order = _rng(self._seed, self._epoch, window + 1).permutation(size)
            if window + 1 < len(self._ranges):
                self._ahead = (window + 1, self._reader.submit(self._read, window + 1))
        return self._current

    def _read(self, window: int) -> RankingBatch:
        return self._files.read(self._ranges[window])


def _rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch << 32 | stream]))


def joined(pieces: list[RankingBatch]) -> RankingBatch:
    """Return the rows of all pieces, one after another."""
    blocks = [piece.features for piece in pieces]
    multi = zip(*(block.multi for block in blocks), strict=True)
    outcomes = [piece.outcomes for piece in pieces if piece.outcomes is not None]
    return RankingBatch(
        features=FeatureBlock(
            torch.cat([block.single for block in blocks]),
            tuple(_joined_jagged(some) for some in multi),
            torch.cat([block.dense for block in blocks]),
        ),
        label=torch.cat([piece.label for piece in pieces]),
        weight=torch.cat([piece.weight for piece in pieces]),
        examples=torch.cat([piece.examples for piece in pieces]),
        outcomes=torch.cat(outcomes) if outcomes else None,
    )


def _joined_jagged(parts: tuple[Jagged, ...]) -> Jagged:
    lengths = torch.cat([part.lengths() for part in parts])
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    weights = [part.weights for part in parts if part.weights is not None]
    return Jagged(
        torch.cat([part.values for part in parts]),
        offsets,
        torch.cat(weights) if weights else None,
    )
