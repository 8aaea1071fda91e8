"""Labelled rows of a data set as batches for a ranker, a pure function of (seed, epoch, step).

A row is an event with its user, its context and its item side by side, joined as it is drawn:
users and items are encoded once each, however often the log names them.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from features.dataset import Dataset
from features.loader import prefetch, without_ids
from features.split import TRAIN
from recsys.batch import RankingBatch
from recsys.errors import ConfigError


class RankingLoader:
    """Draws `RankingBatch`es from the rows of a data set whose schema declares a label."""

    def __init__(
        self, data: Dataset, *, batch_size: int, seed: int, id_dropout: float = 0.0
    ) -> None:
        """Get ready.

        Args:
            data: with a label on every event.
            batch_size: rows of a batch, over all ranks.
            seed: of the order and of the dropped ids.
            id_dropout: share of ids replaced by the unknown id in training batches.

        Raises:
            ConfigError: the schema declares no label.
        """
        if data.tables.events.label is None:
            raise ConfigError(
                "a ranker needs labels: give schema.interactions.label, a column of 0 and 1 or "
                "of numbers with at_least"
            )
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.id_dropout = id_dropout
        self.layout = data.encoder.ranking_layout()
        self.events = data.events_of((TRAIN,))
        names = [name for name, _ in self.layout.single]
        self._ids = [names.index(name) for name in names if name in data.encoder.known_ids]

    @property
    def num_steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.events) // self.batch_size)

    def num_rows(self, part: int) -> int:
        """Return how many rows `part` has."""
        return int((self.data.part == part).sum())

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield the batches of `epoch` from `first_step` on, made ahead in one thread.

        Of `world` ranks each gets the rows rank, rank + world, ... of every batch: all have the
        same number of steps, and where the last batch has fewer rows than ranks, some get none.
        """
        order = _rng(self.seed, epoch, 0).permutation(len(self.events))
        yield from prefetch(
            lambda step: self._batch(epoch, step, order, slice(rank, None, world)),
            range(first_step, self.num_steps),
        )

    def ordered(
        self, part: int, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield all rows of `part` in the order of the events, for evaluation.

        Ranks share every batch out as they do in `epoch`.
        """
        numbers = self.data.events_of((part,))
        for start in range(0, len(numbers), batch_size):
            yield self.rows(numbers[start : start + batch_size][rank::world])

    def rows(self, numbers: NDArray[np.int64]) -> RankingBatch:
        """Return the events `numbers` (B,) as they are."""
        events = self.data.tables.events
        users = torch.from_numpy(events.user_row[numbers].astype(np.int64))
        items = torch.from_numpy(events.item_row[numbers].astype(np.int64))
        where = torch.from_numpy(numbers)
        query = self.data.users.take(users).beside(self.data.context.take(where))
        assert events.label is not None
        return RankingBatch(
            features=query.beside(self.data.items.take(items)),
            label=torch.from_numpy(events.label[numbers]),
            weight=torch.from_numpy(events.weight[numbers]),
            examples=where,
        )

    def _batch(self, epoch: int, step: int, order: NDArray[np.int64], mine: slice) -> RankingBatch:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        batch = self.rows(self.events[chosen[mine]])
        if not self._ids or not self.id_dropout:
            return batch
        # Drawn for the whole batch, so that a row's fate does not depend on the number of ranks.
        drawn = _rng(self.seed, epoch, step + 1).random((len(chosen), len(self._ids)))
        dropped = drawn[mine] < self.id_dropout
        features = batch.features
        for place, column in enumerate(self._ids):
            features = without_ids(features, (column,), dropped[:, place])
        return RankingBatch(features, batch.label, batch.weight, batch.examples)


def _rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch << 32 | stream]))
