"""Batches: frozen dataclasses of tensors. Jagged means values + offsets.

Shape letters: N rows, F single-valued sparse features, D dense columns, U distinct items
of a batch, C of them candidates, B queries, T history events in all.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Jagged:
    """Rows of unlike length: row n holds `values[offsets[n]:offsets[n + 1]]`.

    values (T,) int64; offsets (N + 1,) int64, from 0 to T.
    """

    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> Tensor:
        """Return (N,) int64."""
        return self.offsets.diff()

    def take(self, rows: Tensor) -> "Jagged":
        """Return the rows `rows` (M,) int64 in that order, repeats allowed."""
        lengths = self.lengths()[rows]
        offsets = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        starts = self.offsets[rows] - offsets[:-1]
        where = torch.repeat_interleave(starts, lengths, output_size=int(offsets[-1]))
        return Jagged(self.values[where + torch.arange(len(where), device=rows.device)], offsets)

    def to(self, device: torch.device | str) -> Self:
        """Return the same on `device`."""
        return cast(Self, _map(self, lambda tensor: tensor.to(device)))


@dataclass(frozen=True)
class FeatureBlock:
    """Encoded features of N rows of one side, in the order of its `FeatureLayout`.

    single (N, F) int64 value hashes; multi: one `Jagged` of N rows of hashes a feature;
    dense (N, D) float32.
    """

    single: Tensor
    multi: tuple[Jagged, ...]
    dense: Tensor

    def __len__(self) -> int:
        return len(self.single)

    def take(self, rows: Tensor) -> "FeatureBlock":
        """Return the rows `rows` (M,) int64 in that order."""
        multi = tuple(jagged.take(rows) for jagged in self.multi)
        return FeatureBlock(self.single[rows], multi, self.dense[rows])

    def to(self, device: torch.device | str) -> Self:
        """Return the same on `device`."""
        return cast(Self, _map(self, lambda tensor: tensor.to(device)))


@dataclass(frozen=True)
class FeatureLayout:
    """Which columns a `FeatureBlock` holds: feature names with multiplicities, dense names."""

    single: tuple[tuple[str, int], ...]
    multi: tuple[tuple[str, int], ...]
    dense: tuple[str, ...]

    @property
    def num_lookups(self) -> int:
        """Sum of multiplicities: how many table rows (bags) one row of the block reads."""
        return sum(multiplicity for _, multiplicity in self.single + self.multi)


@dataclass(frozen=True)
class PairBatch:
    """Queries with the item each of them took; every distinct item stands once.

    items: U rows, the first `num_candidates` of them (C) the softmax's candidates.
    item_rows (U,) int64, their row numbers in the catalogue.
    query: B rows of user and context features.
    history: B rows of positions into `items`, oldest first.
    positive (B,) int64, position of the item taken, below C.
    log_inclusion (C,) float32, log of the probability that sampling draws each candidate.
    weight (B,) float32. examples (B,) int64, event numbers, to name a bad row.
    """

    items: FeatureBlock
    item_rows: Tensor
    num_candidates: int
    query: FeatureBlock
    history: Jagged
    positive: Tensor
    log_inclusion: Tensor
    weight: Tensor
    examples: Tensor

    def __len__(self) -> int:
        return len(self.positive)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on `device`."""
        return cast(Self, _map(self, lambda tensor: tensor.to(device, non_blocking=True)))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return cast(Self, _map(self, lambda tensor: tensor.pin_memory()))


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply `change` to every tensor of a tree of dataclasses and tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_map(part, change) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _map(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value
