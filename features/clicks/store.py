"""Encoded rows of a click log as flat binary files, written by appending and read by ranges.

One folder a part (train, validation, test), N rows each, little-endian, row by row:
`single.bin` (N, F) int64; `dense.bin` (N, D) float32; `label.bin`, `weight.bin` (N,) float32;
`row.bin` (N,) int64, row numbers over the source files; `outcomes.bin` (N, K) float32 where there
are K further outcomes than the label; and for the i-th multi-valued feature
`multi-<i>.values.bin` (T,) int64, `multi-<i>.offsets.bin` (N + 1,) int64 and, where values are
weighted, `multi-<i>.weights.bin` (T,) float32.

Ranges are read into memory of our own, not mapped: pages of a map stay resident, and a process
that has read all of a map is as large as the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from recsys.core.errors import IntegrityError
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged, RankingBatch

with on_first_use():
    import torch
    from torch import Tensor

PARTS = ("train", "validation", "test")
"""Folder of each part, by its number in `recsys.features.dataset.split`."""

Range = tuple[int, int]


@dataclass(frozen=True)
class PartFacts:
    """Rows of a part, those of them with label 1, and those that each further outcome is known of.

    num_values: how many values each multi-valued feature has.
    """

    num_rows: int
    num_positive: int
    num_known: list[int]
    num_values: list[int]

    @classmethod
    def joined(cls, facts: Sequence[PartFacts]) -> PartFacts:
        """Return the facts of one or more pieces one after another."""
        return cls(
            sum(one.num_rows for one in facts),
            sum(one.num_positive for one in facts),
            [sum(each) for each in zip(*(one.num_known for one in facts), strict=True)],
            [sum(each) for each in zip(*(one.num_values for one in facts), strict=True)],
        )


class PartWriter:
    """Appends batches to the files of one part; a context manager that closes them."""

    def __init__(self, folder: Path, layout: FeatureLayout, num_outcomes: int = 0) -> None:
        folder.mkdir(parents=True)
        self.num_rows = 0
        self.num_positive = 0
        self.num_known = [0] * num_outcomes
        self._folder = folder
        self._open = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._ends = [0] * len(layout.multi)
        for name in ("single", "dense", "label", "weight", "row"):
            self._file(name)
        for number in range(len(layout.multi)):
            self._file(f"multi-{number}.values")
            self._file(f"multi-{number}.offsets").write(np.zeros(1, np.int64).tobytes())

    def __enter__(self) -> PartWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
        self._open.close()

    def append(self, batch: RankingBatch) -> None:
        """Add the rows of `batch` at the end."""
        block = batch.features
        self._write("single", block.single)
        self._write("dense", block.dense)
        self._write("label", batch.label)
        self._write("weight", batch.weight)
        self._write("row", batch.examples)
        if batch.outcomes is not None:
            self._write("outcomes", batch.outcomes)
            for number, known in enumerate((~batch.outcomes.isnan()).sum(0).tolist()):
                self.num_known[number] += known
        for number, jagged in enumerate(block.multi):
            self._write(f"multi-{number}.values", jagged.values)
            self._write(f"multi-{number}.offsets", jagged.offsets[1:] + self._ends[number])
            self._ends[number] += len(jagged.values)
            if jagged.weights is not None:
                self._write(f"multi-{number}.weights", jagged.weights)
        self.num_rows += len(batch)
        self.num_positive += int(batch.label.sum())

    def facts(self) -> PartFacts:
        """Return what was written so far."""
        return PartFacts(self.num_rows, self.num_positive, list(self.num_known), list(self._ends))

    def _file(self, name: str) -> BinaryIO:
        if name not in self._files:
            opened = (self._folder / f"{name}.bin").open("wb")
            self._files[name] = self._open.enter_context(opened)
        return self._files[name]

    def _write(self, name: str, values: Tensor) -> None:
        self._file(name).write(values.contiguous().numpy().data)


@dataclass(frozen=True)
class PartFiles:
    """What `PartWriter` wrote: `num_rows` rows of `layout` in `folder`."""

    folder: Path
    layout: FeatureLayout
    num_rows: int
    num_outcomes: int = 0

    def read(self, ranges: Sequence[Range]) -> RankingBatch:
        """Return the rows of each (start, stop) one after another.

        Raises:
            IntegrityError: a file is shorter than it was when it was written.
        """
        for start, stop in ranges:
            if not 0 <= start <= stop <= self.num_rows:
                raise ValueError(f"rows {start} to {stop} of {self.num_rows:,}")
        outcomes = None
        if self.num_outcomes:
            outcomes = self._rows("outcomes", np.float32, self.num_outcomes, ranges)
        return RankingBatch(
            features=FeatureBlock(
                self._rows("single", np.int64, len(self.layout.single), ranges),
                tuple(self._jagged(number, ranges) for number in range(len(self.layout.multi))),
                self._rows("dense", np.float32, len(self.layout.dense), ranges),
            ),
            label=self._rows("label", np.float32, 1, ranges).squeeze(1),
            weight=self._rows("weight", np.float32, 1, ranges).squeeze(1),
            examples=self._rows("row", np.int64, 1, ranges).squeeze(1),
            outcomes=outcomes,
        )

    def _rows(self, name: str, dtype: DTypeLike, width: int, ranges: Sequence[Range]) -> Tensor:
        return torch.from_numpy(_read(self._path(name), dtype, width, ranges))

    def _jagged(self, number: int, ranges: Sequence[Range]) -> Jagged:
        fenced = [(start, stop + 1) for start, stop in ranges]
        raw = _read(self._path(f"multi-{number}.offsets"), np.int64, 1, fenced)[:, 0]
        lengths, spans, at = [], [], 0
        for start, stop in ranges:
            own = raw[at : at + stop - start + 1]
            lengths.append(np.diff(own))
            spans.append((int(own[0]), int(own[-1])))
            at += len(own)
        offsets = np.concatenate([[0], *lengths]).cumsum()
        weights = None
        if self._path(f"multi-{number}.weights").exists():
            weights = self._rows(f"multi-{number}.weights", np.float32, 1, spans).squeeze(1)
        values = self._rows(f"multi-{number}.values", np.int64, 1, spans).squeeze(1)
        return Jagged(values, torch.from_numpy(offsets), weights)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"


def _read(path: Path, dtype: DTypeLike, width: int, ranges: Sequence[Range]) -> NDArray[Any]:
    """Return the rows of `ranges` of a file of rows of `width` numbers, (sum, width)."""
    out = np.empty((sum(stop - start for start, stop in ranges), width), dtype)
    row_bytes = out.itemsize * width
    if out.nbytes == 0:
        return out
    room = out.reshape(-1).view(np.uint8).data
    handle = os.open(path, os.O_RDONLY)
    try:
        filled = 0
        for start, stop in ranges:
            end = filled + (stop - start) * row_bytes
            place = start * row_bytes
            while filled < end:
                count = os.preadv(handle, [room[filled:end]], place)
                if count == 0:
                    raise IntegrityError(
                        f"{path}: ends before byte {place} is read; remove its entry"
                    )
                filled, place = filled + count, place + count
    finally:
        os.close(handle)
    return out


def take_rows(batch: RankingBatch, rows: torch.Tensor) -> RankingBatch:
    """Return the rows `rows` (M,) int64 of a batch in that order."""
    features = FeatureBlock(
        batch.features.single.index_select(0, rows),
        tuple(jagged.take(rows) for jagged in batch.features.multi),
        batch.features.dense.index_select(0, rows),
    )
    outcomes = None if batch.outcomes is None else batch.outcomes[rows]
    return RankingBatch(
        features, batch.label[rows], batch.weight[rows], batch.examples[rows], outcomes
    )
