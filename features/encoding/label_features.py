"""Features of the labels of training rows, worked out from encoded rows.

memory = LabelNumbers(schema.label_features, encoder.columns_layout(), encoder.label_tables)
rows = memory.beside(block)   # as rows that were not trained on see them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.encoding.label_sums import (
    Integers,
    LabelSums,
    LabelTable,
    Seen,
    earlier,
)
from recsys.features.encoding.past import LoggedEvents
from recsys.features.kinds.derived import DerivedFeature, LabelFeature

with on_first_use():
    import torch
    from torch import Tensor

_CHUNK_ROWS = 1 << 20


class LabelledEvents(LoggedEvents, Protocol):
    """E rows of a log with their weights and their numbers in it."""

    @property
    def weight(self) -> NDArray[np.float32]:
        """(E,) importance."""

    @property
    def row(self) -> Integers:
        """(E,) number in the log."""


def label_layout(features: Sequence[DerivedFeature], columns: FeatureLayout) -> FeatureLayout:
    """Return what `LabelNumbers.beside` adds to `columns`: users, context and items."""
    layouts = (one.layout(columns) for one in features if isinstance(one, LabelFeature))
    return sum(layouts, start=FeatureLayout((), (), ()))


class LabelNumbers:
    """Works out label features of blocks that begin with the columns of one layout."""

    def __init__(
        self,
        features: Sequence[LabelFeature],
        columns: FeatureLayout,
        tables: Mapping[str, LabelTable],
    ) -> None:
        """Get ready; tables: name of a feature -> what the training rows say."""
        self.features, self._columns, self._tables = features, columns, tables
        self.width = len(label_layout(features, columns).dense)

    def values(self, block: FeatureBlock) -> list[Integers]:
        """Return the values of the rows of `block`, (N,) of each feature."""
        return [one.values(block, self._columns).numpy() for one in self.features]

    def numbers(self, seen: Sequence[Seen]) -> Tensor:
        """Return (N, width) of what each feature's values were seen with."""
        pairs = zip(self.features, seen, strict=True)
        return torch.cat([one.numbers(found) for one, found in pairs], dim=1)

    def of_all(self, block: FeatureBlock) -> Tensor:
        """Return (N, width) as all training rows have it."""
        values = zip(self.features, self.values(block), strict=True)
        return self.numbers([self._tables[one.name].of(found) for one, found in values])

    def beside(self, block: FeatureBlock, numbers: Tensor | None = None) -> FeatureBlock:
        """Return the rows of `block` with their features behind them.

        numbers: (N, width) that are known already.
        """
        if not self.features:
            return block
        found = self.of_all(block) if numbers is None else numbers
        return block.beside(FeatureBlock(block.single[:, :0], (), found))

    def again(self, before: FeatureBlock, after: FeatureBlock) -> FeatureBlock:
        """Return `after`, whose last dense columns are those of `before`, as its values have them.

        A row whose value changed became one that nobody has seen: an id was dropped.
        """
        if not self.features:
            return after
        never = np.zeros(1)
        start, dense = after.dense.shape[1] - self.width, after.dense.clone()
        for one, old, new in zip(
            self.features, self.values(before), self.values(after), strict=True
        ):
            unseen = one.numbers(Seen(never, never, never, never))
            stop = start + unseen.shape[1]
            changed = torch.from_numpy(old != new)
            dense[changed, start:stop] = unseen
            start = stop
        return FeatureBlock(after.single, after.multi, dense)


class TrainingLabels:
    """What training rows say of each other, of a log in memory."""

    def __init__(
        self,
        features: Sequence[LabelFeature],
        columns: FeatureLayout,
        events: LabelledEvents,
        trained: Integers,
        sides: tuple[FeatureBlock, FeatureBlock, FeatureBlock],
        *,
        has_time: bool,
    ) -> None:
        """Look up the values of every training row.

        Args:
            features: whose numbers are asked for.
            columns: layout of users, context and items side by side.
            events: the log.
            trained: (T,) the events that are training rows.
            sides: encoded users, context (a row an event) and items.
            has_time: whether the time of events is a clock's.
        """
        self._asked = LabelNumbers(features, columns, {})
        self._has_time = has_time
        assert events.label is not None
        self._label, self._weight = events.label[trained], events.weight[trained]
        self._row, self._time = events.row[trained], events.time[trained]
        users, items = events.user_row[trained], events.item_row[trained]
        rows_of = (users.astype(np.int64), trained, items.astype(np.int64))
        parts: list[list[Integers]] = [[np.zeros(0, np.int64)] for _ in features]
        for start in range(0, len(trained), _CHUNK_ROWS):
            here = slice(start, start + _CHUNK_ROWS)
            single = [
                side.single[torch.from_numpy(rows[here])]
                for side, rows in zip(sides, rows_of, strict=True)
            ]
            joined = torch.cat(single, dim=1)
            block = FeatureBlock(joined, (), torch.zeros(len(joined), 0))
            for part, values in zip(parts, self._asked.values(block), strict=True):
                part.append(values)
        self._values = [np.concatenate(part) for part in parts]

    def tables(self) -> dict[str, LabelTable]:
        """Return what all of them say, by the name of the feature."""
        named = zip(self._asked.features, self._values, strict=True)
        return {one.name: self._sums(one, values, 1).table() for one, values in named}

    def numbers(self) -> Tensor:
        """Return (T, width): what each training row is told, its own label left out."""
        seen = []
        for one, values in zip(self._asked.features, self._values, strict=True):
            folds = one.folds_of(has_time=self._has_time)
            if folds:
                seen.append(self._sums(one, values, folds).outside().of(values, self._row))
            else:
                seen.append(earlier(values, self._time, self._label, self._weight))
        return self._asked.numbers(seen)

    def _sums(self, feature: LabelFeature, values: Integers, folds: int) -> LabelSums:
        sums = LabelSums(feature.name, folds)
        sums.add(values, self._row, self._label, self._weight)
        return sums
