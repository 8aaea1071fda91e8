"""Labelled rows of a data set as batches for a ranker, a pure function of (seed, epoch, step).

A row is an event with its user, its context and its item side by side, joined as it is drawn:
users and items are encoded once each, however often the log names them. Training may see a
share of the negative rows alone; a log without labels gets negatives of other items
(`recsys.features.batches.negatives`), of its rows that are asked for.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.data.batch import RankingBatch
from recsys.features.batches.memory import RowMemory
from recsys.features.batches.negatives import (
    EVALUATION_NEGATIVES,
    check_negatives,
    kept_rows,
    num_kept,
    other_items,
    others_offset,
    share_offset,
)
from recsys.features.batches.pairs import prefetch, without_ids
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.crosses import Crosses
from recsys.features.encoding.history_features import PastFeatures

with on_first_use():
    import torch

_EVALUATION_STREAM = 1 << 31
"""Random streams of the rows that a ranker is evaluated on; the batches have others."""


class RankingLoader:
    """Draws `RankingBatch`es from the rows of a data set with labels, or with none but positives.

    logit_offset: what undoes the sampling of negatives, added to logits.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        batch_size: int,
        seed: int,
        id_dropout: float = 0.0,
        negative_rate: float = 1.0,
        negatives: int = 0,
    ) -> None:
        """Get ready.

        Args:
            data: the rows.
            batch_size: rows of a batch, over all ranks.
            seed: of the order, of the dropped ids and of the negatives.
            id_dropout: share of ids replaced by the unknown id in training batches.
            negative_rate: share of the negative training rows that an epoch holds.
            negatives: other items for each row of a data set without labels.

        Raises:
            ConfigError: `negatives` would need a second item.
        """
        if (data.tables.events.label is None) != bool(negatives):
            raise ValueError("rows have either labels or negatives that are drawn")
        check_negatives(negatives, data.num_items)
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.id_dropout = id_dropout
        self.negative_rate, self.negatives = negative_rate, negatives
        encoder, derived = data.encoder, data.encoder.schema.derived_features
        self.layout = encoder.ranking_layout()
        self._crosses = Crosses(derived, encoder.columns_layout())
        self._past = PastFeatures(
            derived, data.tables.events, data.items, encoder.layout("items"), encoder.scalers
        )
        self._memory = RowMemory(data)
        self.events = data.targets_of((TRAIN,))
        self._label = self._labels(self.events)
        self._events_an_epoch = num_kept(self._label, negative_rate)
        if negatives:
            self.logit_offset = others_offset(negatives, data.num_items)
        else:
            self.logit_offset = share_offset(self._label, negative_rate)
        names = [name for name, _ in self.layout.single]
        self._ids = [names.index(name) for name in names if name in data.encoder.known_ids]

    @property
    def num_steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-self._events_an_epoch // self._events_a_batch)

    def num_rows(self, part: int) -> int:
        """Return how many rows `ordered` gives of `part`."""
        return len(self.data.targets_of((part,))) * (1 + self._num_drawn)

    def num_known(self, part: int) -> tuple[int, ...]:
        """Return in how many rows of `part` each further outcome is known."""
        outcomes = self.data.tables.events.outcomes
        if outcomes is None:
            return ()
        return tuple((~np.isnan(outcomes[self.data.targets_of((part,))])).sum(axis=0).tolist())

    def users(self, part: int) -> NDArray[np.int32]:
        """Return the user of each row that `ordered` gives of `part`."""
        users = self.data.tables.events.user_row[self.data.targets_of((part,))]
        return np.repeat(users, 1 + self._num_drawn)

    def items(self, part: int) -> NDArray[np.int64]:
        """Return the item of each row that `ordered` gives of `part`."""
        return self._ordered_rows(part)[1]

    @property
    def _num_drawn(self) -> int:
        return min(EVALUATION_NEGATIVES, self.data.num_items - 1) if self.negatives else 0

    @property
    def _events_a_batch(self) -> int:
        return max(1, self.batch_size // (1 + self.negatives))

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield the batches of `epoch` from `first_step` on, made ahead in one thread.

        Of `world` ranks each gets the rows rank, rank + world, ... of every batch: all have the
        same number of steps, and where the last batch has fewer rows than ranks, some get none.
        """
        order = self._order(epoch)
        yield from prefetch(
            lambda step: self._batch(epoch, step, order, slice(rank, None, world)),
            range(first_step, self.num_steps),
        )

    def ordered(
        self, part: int, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield all rows of `part` in the order of the events, for evaluation.

        Ranks share every batch out as they do in `epoch`. Where negatives are drawn, each event
        is followed by `EVALUATION_NEGATIVES` other items, whose weights make up for those not
        drawn.
        """
        numbers, items = self._ordered_rows(part)
        for start in range(0, len(numbers), batch_size):
            here = slice(start, start + batch_size)
            batch = self.rows(numbers[here][rank::world], items[here][rank::world])
            if self._num_drawn:
                stands_for = (self.data.num_items - 1) / self._num_drawn
                weight = torch.where(batch.label > 0, 1.0, stands_for) * batch.weight
                batch = replace(batch, weight=weight)
            yield batch

    def _ordered_rows(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return event and item of each row that `ordered` gives of `part`."""
        numbers = self.data.targets_of((part,))
        own = self.data.tables.events.item_row[numbers].astype(np.int64)
        if not self._num_drawn:
            return numbers, own
        rng = _rng(self.seed, 0, _EVALUATION_STREAM + part)
        items = other_items(own, self._num_drawn, self.data.num_items, rng).ravel()
        return np.repeat(numbers, 1 + self._num_drawn), items

    def rows(
        self, numbers: NDArray[np.int64], item_rows: NDArray[np.int64] | None = None
    ) -> RankingBatch:
        """Return the events `numbers` (B,) as they are, or with the items `item_rows` (B,).

        A drawn item has no interaction: its label is 0.
        """
        events = self.data.tables.events
        label, own = self._labels(numbers), events.item_row[numbers].astype(np.int64)
        if item_rows is not None:
            label = np.where(item_rows == own, label, np.float32(0))
        users = torch.from_numpy(events.user_row[numbers].astype(np.int64))
        items = torch.from_numpy(own if item_rows is None else item_rows)
        where = torch.from_numpy(numbers)
        query = self.data.users.take(users).beside(self.data.context.take(where))
        columns = query.beside(self.data.items.take(items))
        before = self._past.beside(self._crosses.beside(columns), numbers, items.numpy())
        further = events.outcomes
        return RankingBatch(
            features=self._memory.beside(before, numbers, items.numpy()),
            label=torch.from_numpy(label),
            weight=torch.from_numpy(events.weight[numbers]),
            examples=where,
            outcomes=None if further is None else torch.from_numpy(further[numbers]),
        )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return which training events `epoch` holds, in its order."""
        rng = _rng(self.seed, epoch, 0)
        if self.negative_rate < 1:
            return kept_rows(self._label, self.negative_rate, rng)
        return rng.permutation(len(self.events))

    def _labels(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        label = self.data.tables.events.label
        return np.ones(len(numbers), np.float32) if label is None else label[numbers]

    def _batch(self, epoch: int, step: int, order: NDArray[np.int64], mine: slice) -> RankingBatch:
        size = self._events_a_batch
        numbers = self.events[order[step * size : (step + 1) * size]]
        rng, items = _rng(self.seed, epoch, step + 1), None
        if self.negatives:
            own = self.data.tables.events.item_row[numbers].astype(np.int64)
            items = other_items(own, self.negatives, self.data.num_items, rng).ravel()[mine]
            numbers = np.repeat(numbers, 1 + self.negatives)
        batch = self.rows(numbers[mine], items)
        if not self._ids or not self.id_dropout:
            return batch
        # Drawn for the whole batch, so that a row's fate does not depend on the number of ranks.
        drawn = rng.random((len(numbers), len(self._ids)))
        dropped = drawn[mine] < self.id_dropout
        features = batch.features
        for place, column in enumerate(self._ids):
            features = without_ids(features, (column,), dropped[:, place])
        features = self._memory.again(batch.features, self._crosses.again(features))
        return replace(batch, features=features)


def _rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch << 32 | stream]))
