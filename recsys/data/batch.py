"""Batches: frozen dataclasses of tensors. Jagged means values + offsets.

Shape letters: N rows, F single-valued sparse features, D dense columns, U distinct items
of a batch, C of them candidates, B queries, T history events in all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.data.feature_options import HistoryPooling

with on_first_use():
    import torch
    from torch import Tensor


class OnDevice:
    """A dataclass of tensors, and of others like it."""

    def to(self, device: torch.device | str) -> Self:
        """Return it on `device`."""
        return cast(Self, _map(self, lambda tensor: tensor.to(device)))


@dataclass(frozen=True)
class Jagged(OnDevice):
    """Rows of unlike length: row n holds `values[offsets[n]:offsets[n + 1]]`.

    values (T,) int64; offsets (N + 1,) int64, from 0 to T; weights (T,) float32, how much each
    value counts in its row, or None: all the same.
    """

    values: Tensor
    offsets: Tensor
    weights: Tensor | None = None

    @classmethod
    def of_lengths(cls, values: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> Jagged:
        """Return rows of `lengths` (N,) out of `values` (T,), one after the other."""
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(torch.from_numpy(values.astype(np.int64)), torch.from_numpy(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> Tensor:
        """Return (N,) int64."""
        return self.offsets.diff()

    def owners(self) -> Tensor:
        """Return the row of each value, (T,) int64."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return torch.repeat_interleave(rows, self.lengths(), output_size=len(self.values))

    def take(self, rows: Tensor) -> Jagged:
        """Return the rows `rows` (M,) int64 in that order, repeats allowed."""
        lengths = self.lengths()[rows]
        offsets = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        starts = self.offsets[rows] - offsets[:-1]
        where = torch.repeat_interleave(starts, lengths, output_size=int(offsets[-1]))
        where = where + torch.arange(len(where), device=rows.device)
        weights = None if self.weights is None else self.weights[where]
        return Jagged(self.values[where], offsets, weights)

    def renamed(self, name_of: NDArray[np.int64]) -> Jagged:
        """Return the values by other names, name_of[value]; those named -1 are left out."""
        values = name_of[self.values.numpy()]
        kept = values >= 0
        owners = self.owners().numpy()[kept]
        found = Jagged.of_lengths(values[kept], np.bincount(owners, minlength=len(self)))
        weights = None if self.weights is None else self.weights[torch.from_numpy(kept)]
        return Jagged(found.values, found.offsets, weights)

    def above(self, other: Jagged) -> Jagged:
        """Return these rows, then those of `other`."""
        weights = None
        if self.weights is not None or other.weights is not None:
            weights = torch.cat([_ones_or(one.weights, one.values) for one in (self, other)])
        return Jagged(
            torch.cat([self.values, other.values]),
            torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]]),
            weights,
        )


@dataclass(frozen=True)
class FeatureBlock(OnDevice):
    """Encoded features of N rows of one side, in the order of its `FeatureLayout`.

    single (N, F) int64 value hashes; multi: one `Jagged` of N rows of hashes a feature;
    dense (N, D) float32.
    """

    single: Tensor
    multi: tuple[Jagged, ...]
    dense: Tensor

    def __len__(self) -> int:
        return len(self.single)

    def take(self, rows: Tensor) -> FeatureBlock:
        """Return the rows `rows` (M,) int64 in that order."""
        multi = tuple(jagged.take(rows) for jagged in self.multi)
        return FeatureBlock(self.single[rows], multi, self.dense[rows])

    def above(self, other: FeatureBlock) -> FeatureBlock:
        """Return these rows, then those of `other`, which has the same features."""
        multi = zip(self.multi, other.multi, strict=True)
        return FeatureBlock(
            torch.cat([self.single, other.single]),
            tuple(first.above(second) for first, second in multi),
            torch.cat([self.dense, other.dense]),
        )

    def beside(self, *others: FeatureBlock) -> FeatureBlock:
        """Return the features of the same N rows side by side."""
        blocks = (self, *others)
        return FeatureBlock(
            _joined([block.single for block in blocks]),
            tuple(jagged for block in blocks for jagged in block.multi),
            _joined([block.dense for block in blocks]),
        )


@dataclass(frozen=True)
class FeatureLayout:
    """Which columns a `FeatureBlock` holds: feature names with multiplicities, dense names.

    pooling: how the values of each multi-valued feature become one vector, "mean" for all where
    empty. With weights w: "sum" is sum(w e), "mean" sum(w e) / sum(w), "sqrtn"
    sum(w e) / sqrt(sum(w^2)). "attention" is described in `recsys.layers.pooling.attended`,
    "activation" in `recsys.layers.pooling.ActivationPooling`. reads: (feature, source) of each
    multi-valued feature whose values read the rows of another feature of the layout, its source;
    that is what both compare them with.
    """

    single: tuple[tuple[str, int], ...]
    multi: tuple[tuple[str, int], ...]
    dense: tuple[str, ...]
    pooling: tuple[HistoryPooling, ...] = ()
    reads: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.pooling and len(self.pooling) != len(self.multi):
            raise ValueError(f"{len(self.multi)} multi-valued features, {len(self.pooling)} pooled")

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what JSON made of `dataclasses.asdict`."""
        return cls(
            tuple((name, multiplicity) for name, multiplicity in raw["single"]),
            tuple((name, multiplicity) for name, multiplicity in raw["multi"]),
            tuple(raw["dense"]),
            tuple(raw.get("pooling", ())),
            tuple((name, source) for name, source in raw.get("reads", ())),
        )

    @property
    def poolings(self) -> tuple[HistoryPooling, ...]:
        """The pooling of each multi-valued feature."""
        mean: HistoryPooling = "mean"
        return self.pooling or (mean,) * len(self.multi)

    @property
    def features(self) -> tuple[tuple[str, int], ...]:
        """Single-valued, then multi-valued features with their multiplicities."""
        return self.single + self.multi

    def __add__(self, other: FeatureLayout) -> FeatureLayout:
        """Return the layout of two blocks side by side (`FeatureBlock.beside`)."""
        return FeatureLayout(
            self.single + other.single,
            self.multi + other.multi,
            self.dense + other.dense,
            self.poolings + other.poolings,
            self.reads + other.reads,
        )

    def source_of(self, feature: str) -> str:
        """Return the feature whose rows the values of `feature` read: itself but for `reads`."""
        return dict(self.reads).get(feature, feature)

    @property
    def num_lookups(self) -> int:
        """Sum of multiplicities: how many table rows (bags) one row of the block reads."""
        return sum(multiplicity for _, multiplicity in self.features)


@dataclass(frozen=True)
class PairBatch(OnDevice):
    """Queries with the items that their users interacted with; every distinct item is in it once.

    Shape letters here: P pairs of a query and its positive item; P = B where each has one.
    Shared out among processes, `items` holds a contiguous share of the U rows, and everything of
    B or P rows a share of the batch's queries; all else is of the whole batch.

    items: U rows, the first `num_candidates` of them (C) the loss's candidates.
    item_rows (U,) int64, their row numbers in the catalogue.
    query: B rows of user and context features.
    history: B rows of positions into `items`, oldest first.
    asks (P,) int64, the query of each pair, ascending; positive (P,) int64, the position of the
    positive item, below C.
    not_negative: B rows of distinct positions below C: candidates that are no negatives of a
    query, its positives among them.
    log_inclusion (C,) float32, log of the probability that sampling draws each candidate.
    weight (P,) float32. examples (P,) int64, event numbers, to name a bad row.
    """

    items: FeatureBlock
    item_rows: Tensor
    num_candidates: int
    query: FeatureBlock
    history: Jagged
    asks: Tensor
    positive: Tensor
    not_negative: Jagged
    log_inclusion: Tensor
    weight: Tensor
    examples: Tensor

    def __len__(self) -> int:
        return len(self.positive)


@dataclass(frozen=True)
class History(OnDevice):
    """What came first, step by step, as a model of sequences reads it: B rows, T steps in all.

    items: B rows of positions (into a batch's items, or of the catalogue), oldest first.
    features: T rows of what is known of each event besides its item.
    gap (T,) float32, seconds since the step before it: 0 at the first, NaN where no clock is known.
    """

    items: Jagged
    features: FeatureBlock
    gap: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def lengths(self) -> Tensor:
        """Return (B,) int64, steps of each row."""
        return self.items.lengths()

    def take(self, rows: Tensor) -> History:
        """Return the rows `rows` (M,) int64 in that order, repeats allowed."""
        steps = Jagged(torch.arange(len(self.gap), device=rows.device), self.items.offsets)
        chosen = steps.take(rows)
        items = Jagged(self.items.values[chosen.values], chosen.offsets)
        return History(items, self.features.take(chosen.values), self.gap[chosen.values])


@dataclass(frozen=True)
class SessionBatch(OnDevice):
    """Sessions whose steps ask for the next item; every distinct item is in it once.

    Shape letters here: B sessions, T steps in all, P steps that ask.

    items: U rows, the first `num_candidates` of them (C) the loss's negatives.
    item_rows (U,) int64, their row numbers in the catalogue.
    users: B rows of user features.
    history: B sessions, T steps.
    asks (P,) int64, ascending: the steps, 0..T-1, after which an item is asked for; positive (P,)
    int64, the position of that item among the U.
    log_inclusion (C,) float32, log of the probability that sampling draws each candidate; zeros
    where the candidates are the whole catalogue.
    weight (P,) float32. examples (P,) int64, event numbers of the items asked for.
    """

    items: FeatureBlock
    item_rows: Tensor
    num_candidates: int
    users: FeatureBlock
    history: History
    asks: Tensor
    positive: Tensor
    log_inclusion: Tensor
    weight: Tensor
    examples: Tensor

    def __len__(self) -> int:
        return len(self.positive)


@dataclass(frozen=True)
class RankingBatch(OnDevice):
    """Rows to be scored one by one: all features of a row, and its label.

    features: B rows. label (B,) float32, 0 or 1. weight (B,) float32. examples (B,) int64, row
    numbers in the log, to name a bad row. outcomes (B, K) float32, further labels: 0, 1 or NaN
    where one is not known; None: there are none.
    """

    features: FeatureBlock
    label: Tensor
    weight: Tensor
    examples: Tensor
    outcomes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def targets(self) -> Tensor:
        """The label, then the further ones, (B, 1 + K); NaN where one is not known."""
        label_B1 = self.label.unsqueeze(1)
        return label_B1 if self.outcomes is None else torch.cat([label_B1, self.outcomes], dim=1)


def _joined(parts: list[Tensor]) -> Tensor:
    """Return the columns of all parts, (N, ...); what alone has columns is not copied."""
    filled = [part for part in parts if part.shape[1]] or parts[:1]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=1)


def _ones_or(weights: Tensor | None, values: Tensor) -> Tensor:
    return torch.ones(len(values), device=values.device) if weights is None else weights


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
