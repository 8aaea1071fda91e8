"""What came before a row: the items its user took, how many, and how long ago.

All of it is as of the row's instant: rows count that are strictly earlier, whatever part they
are in, as they would for a served model. A validation or a test row sees the training rows
before it, a training row of one user may see earlier rows of another that are for validation (in
`of: item`). Rows of one instant do not see each other, nor themselves, so a row's features are the
same whether or not anything at or after its time exists; labels count only of earlier rows.

Events are sorted by user and time. A `Past` sorts those that count by (owner, instant), an owner
being a user or an item and an instant the rank of a time among all times, so one binary search
finds what an owner had before any instant.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import HistoryPooling
from recsys.features.encoding.hashing import NULL_HASH
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.derived import (
    CountFeature,
    DerivedFeature,
    ElapsedFeature,
    HistoryFeature,
)
from recsys.features.tables.checked import Events

Integers = NDArray[np.int64]
_SECOND = 1_000_000  # microseconds


def past_layout(features: Sequence[DerivedFeature], columns: FeatureLayout) -> FeatureLayout:
    """Return what `PastFeatures.block` holds, beside `columns`: users, context and items."""
    histories = [feature for feature in features if isinstance(feature, HistoryFeature)]
    numbers = [f.name for f in features if isinstance(f, CountFeature | ElapsedFeature)]
    multiplicity = dict(columns.features)
    pooling: list[HistoryPooling] = [feature.pooling for feature in histories]
    return FeatureLayout(
        (),
        tuple((feature.name, multiplicity[feature.of]) for feature in histories),
        tuple(column for name in numbers for column in (name, f"{name}.null")),
        tuple(pooling),
        tuple((feature.name, feature.of) for feature in histories),
    )


def past_scalers(
    features: Sequence[DerivedFeature], events: Events, numbers: Integers
) -> dict[str, Scaler]:
    """Return the scale of each count and elapsed time, fitted on the events `numbers` (N,)."""
    pasts = _Pasts(events)
    items = events.item_row[numbers].astype(np.int64)
    return {
        feature.name: Scaler.fit("log1p", pasts.number(feature, numbers, items))
        for feature in features
        if isinstance(feature, CountFeature | ElapsedFeature)
    }


class PastFeatures:
    """The histories, counts and elapsed times of the rows of a log."""

    def __init__(
        self,
        features: Sequence[DerivedFeature],
        events: Events,
        items: FeatureBlock,
        layout: FeatureLayout,
        scalers: Mapping[str, Scaler],
    ) -> None:
        """Sort what the features need.

        Args:
            features: others than these three kinds are passed over.
            events: all rows, of every part.
            items: the encoded catalogue, `layout` its layout.
            layout: of the items.
            scalers: of the counts and elapsed times, as `past_scalers` fits them.
        """
        self._pasts, self._scalers = _Pasts(events), scalers
        self._histories = [
            (feature, _Values(items, layout, feature.of))
            for feature in features
            if isinstance(feature, HistoryFeature)
        ]
        self._numbers = [f for f in features if isinstance(f, CountFeature | ElapsedFeature)]

    def beside(self, block: FeatureBlock, numbers: Integers, item_rows: Integers) -> FeatureBlock:
        """Return the rows of `block` with their past behind them.

        Args:
            block: N rows.
            numbers: (N,) the events that they are: their users and their times.
            item_rows: (N,) their items, which may be others than those of the events.
        """
        if not self._histories and not self._numbers:
            return block
        multi = tuple(self._history(*pair, numbers) for pair in self._histories)
        dense: list[NDArray[np.float32]] = []
        for feature in self._numbers:
            values = self._pasts.number(feature, numbers, item_rows)
            dense.append(self._scalers[feature.name].apply(values))
            dense.append(np.isnan(values).astype(np.float32))
        columns = np.stack(dense, axis=1) if dense else np.zeros((len(numbers), 0), np.float32)
        past = FeatureBlock(
            torch.zeros(len(numbers), 0, dtype=torch.int64), multi, torch.from_numpy(columns)
        )
        return block.beside(past)

    def _history(self, feature: HistoryFeature, values: "_Values", numbers: Integers) -> Jagged:
        past, users = self._pasts.of("user", feature.rows), self._pasts.owners["user"]
        starts, ends = past.before(users[numbers], self._pasts.instant[numbers])
        return values.of(past.items(np.maximum(starts, ends - feature.last), ends))


class Past:
    """The rows that count, by owner and instant.

    rows (C,) int64, their event numbers in that order.
    """

    def __init__(
        self,
        owner: NDArray[np.int32],
        instant: Integers,
        item_row: NDArray[np.int32],
        counted: Integers,
    ) -> None:
        """Sort the events `counted` (C,) by their owner, their instant, and then as they stand.

        Args:
            owner: (E,) of every event.
            instant: (E,) rank of its time.
            item_row: (E,) its item.
            counted: the numbers of those that count.
        """
        self._span = int(instant.max()) + 1
        keys = owner[counted] * np.int64(self._span) + instant[counted]
        order = np.argsort(keys, kind="stable")
        self._keys, self.rows = keys[order], counted[order]
        owners = np.arange(int(owner.max()) + 2) * np.int64(self._span)
        self._first = np.searchsorted(self._keys, owners)
        self._item_row = np.append(item_row[self.rows], np.int32(-1))

    def before(self, owner: NDArray[np.integer], instant: Integers) -> tuple[Integers, Integers]:
        """Return where in `rows` those of each owner (N,) begin, and where `instant` (N,) does."""
        keys = owner * np.int64(self._span) + instant
        starts = self._first[np.minimum(owner, len(self._first) - 1)]  # items that nobody took
        return starts, np.searchsorted(self._keys, keys)

    def items(self, starts: Integers, ends: Integers) -> Jagged:
        """Return the item rows of rows[starts[n]:ends[n]]; -1 alone where that is empty."""
        empty = starts == ends
        starts, lengths = np.where(empty, len(self.rows), starts), np.maximum(ends - starts, 1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Jagged(
            torch.from_numpy(self._item_row[where].astype(np.int64)), torch.from_numpy(offsets)
        )


class _Pasts:
    """The pasts of one log, each sorted when it is first asked for."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self.owners = {"user": events.user_row, "item": events.item_row}
        self._found: dict[tuple[str, str], Past] = {}

    @cached_property
    def instant(self) -> Integers:
        """The rank of each event's time, (E,)."""
        return np.unique(self._events.time, return_inverse=True)[1].astype(np.int64)

    def of(self, owner: str, rows: str) -> Past:
        """Return the past of users or items; a log without labels has positive rows alone."""
        if (owner, rows) not in self._found:
            label = self._events.label
            counts = np.ones(len(self._events), bool)
            if rows == "positives" and label is not None:
                counts = label > 0
            self._found[owner, rows] = Past(
                self.owners[owner], self.instant, self._events.item_row, np.flatnonzero(counts)
            )
        return self._found[owner, rows]

    def number(
        self, feature: CountFeature | ElapsedFeature, numbers: Integers, item_rows: Integers
    ) -> NDArray[np.float64]:
        """Return the rows before each event, or the seconds since the last; NaN where none is."""
        past = self.of(feature.of, feature.rows)
        owner = self.owners["user"][numbers] if feature.of == "user" else item_rows
        starts, ends = past.before(owner, self.instant[numbers])
        if isinstance(feature, CountFeature):
            found = (ends - starts).astype(np.float64)
        elif len(past.rows):
            latest = self._events.time[past.rows[np.maximum(ends - 1, 0)]]
            found = (self._events.time[numbers] - latest) / _SECOND
        else:
            found = np.zeros(len(numbers))
        return np.where(ends > starts, found, np.nan)


class _Values:
    """The encoded values of one feature of the items, and null for the item -1."""

    def __init__(self, items: FeatureBlock, layout: FeatureLayout, feature: str) -> None:
        null = torch.tensor([int(NULL_HASH)])
        single = [name for name, _ in layout.single]
        self._single: Tensor | None = None
        if feature in single:
            self._single = torch.cat([items.single[:, single.index(feature)], null])
            return
        lists = items.multi[[name for name, _ in layout.multi].index(feature)]
        weights = None if lists.weights is None else torch.cat([lists.weights, torch.ones(1)])
        offsets = torch.cat([lists.offsets, lists.offsets[-1:] + 1])
        self._lists = Jagged(torch.cat([lists.values, null]), offsets, weights)

    def of(self, items: Jagged) -> Jagged:
        """Return the values of each row's items, in their order."""
        if self._single is not None:
            return Jagged(self._single[items.values], items.offsets)
        found = self._lists.take(items.values % len(self._lists))
        return Jagged(found.values, found.offsets[items.offsets], found.weights)
