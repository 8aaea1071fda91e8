"""Training batches as a pure function of (seed, epoch, step): nothing to save, nothing to lose.

Every distinct item of a batch (positives, uniform negatives, histories) stands once in it, so
it is looked up and encoded once, however often the batch mentions it.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.dataset import Dataset
from features.hashing import UNKNOWN_HASH
from features.sampling import log_inclusion
from features.split import TRAIN
from recsys.batch import FeatureBlock, Jagged, PairBatch

_Batch = TypeVar("_Batch")


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """What a batch is made of; the fields mean what the training section says of them."""

    batch_size: int
    uniform_negatives: int
    history_length: int
    id_dropout: float
    context_dropout: float
    seed: int


class PairLoader:
    """Draws `PairBatch`es from the training rows of a data set."""

    def __init__(self, data: Dataset, config: LoaderConfig) -> None:
        self.data = data
        self.config = config
        self.events = data.events_of((TRAIN,))
        self.histories = data.histories((TRAIN,))
        self.history_end = self.histories.before_each()
        log_of_batch = log_inclusion(
            data.train_counts,
            batch_size=min(config.batch_size, len(self.events)),
            uniform_negatives=config.uniform_negatives,
        )
        self.log_inclusion = torch.from_numpy(log_of_batch)
        self._item_ids = data.encoder.id_columns("items")
        self._user_ids = data.encoder.id_columns("users")
        self._no_context = data.encoder.encode("interactions", pa.table({"none": pa.nulls(1)}))

    @property
    def num_steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.events) // self.config.batch_size)

    def batch(
        self,
        epoch: int,
        step: int,
        order: NDArray[np.int64] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> PairBatch:
        """Return batch number `step` of `epoch`; `order` is `self.order(epoch)` if at hand.

        All random numbers are drawn for the whole batch, of which rank `rank` of `world` gets
        the queries rank, rank + world, ... and its share of the items.
        """
        size = self.config.batch_size
        chosen = (self.order(epoch) if order is None else order)[step * size : (step + 1) * size]
        rng = self._rng(epoch, step + 1)
        events = self.data.tables.events
        numbers = self.events[chosen]
        positive_rows = events.item_row[numbers].astype(np.int64)
        negatives = rng.integers(0, self.data.num_items, self.config.uniform_negatives)
        users = events.user_row[numbers]
        ends = self.history_end[chosen]
        starts = np.maximum(self.histories.offsets[users], ends - self.config.history_length)
        history = self.histories.windows(starts, ends)
        candidates = np.unique(np.concatenate([positive_rows, negatives]))
        item_rows, slots = _distinct_rows(candidates, history.values.numpy(), self.data.num_items)
        item_rows_tensor = torch.from_numpy(item_rows)
        mine, own_items = slice(rank, None, world), _share(len(item_rows), rank, world)
        drop_item, drop_user, drop_context = self._drops(len(item_rows), len(numbers), rng)
        own_history = Jagged(torch.from_numpy(slots), history.offsets)
        if world > 1:
            own_history = own_history.take(torch.arange(len(numbers))[mine])
        items = self.data.items.take(item_rows_tensor[own_items])
        own = numbers[mine]
        user_block = self.data.users.take(torch.from_numpy(users[mine].astype(np.int64)))
        user_block = without_ids(user_block, self._user_ids, drop_user[mine])
        context = self.data.context.take(torch.from_numpy(own))
        return PairBatch(
            items=without_ids(items, self._item_ids, drop_item[own_items]),
            item_rows=item_rows_tensor,
            num_candidates=len(candidates),
            query=user_block.beside(self._without_context(context, drop_context[mine])),
            history=own_history,
            positive=torch.from_numpy(np.searchsorted(candidates, positive_rows[mine])),
            log_inclusion=self.log_inclusion[item_rows_tensor[: len(candidates)]],
            weight=torch.from_numpy(events.weight[own]),
            examples=torch.from_numpy(own),
        )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the permutation of the training rows that `epoch` follows."""
        return self._rng(epoch, 0).permutation(len(self.events))

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[PairBatch]:
        """Yield the batches of `epoch` from `first_step` on, made ahead in one thread."""
        order = self.order(epoch)
        return prefetch(
            lambda step: self.batch(epoch, step, order, rank=rank, world=world),
            range(first_step, self.num_steps),
        )

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.config.seed, epoch << 32 | stream]))

    def _drops(
        self, num_items: int, num_queries: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Draw which items and users lose their id, and which requests their context."""
        config = self.config
        counts = (num_items, num_queries, num_queries)
        shares = (config.id_dropout, config.id_dropout, config.context_dropout)
        items, users, context = (
            rng.random(count) < share if share else np.zeros(count, bool)
            for count, share in zip(counts, shares, strict=True)
        )
        return items, users, context

    def _without_context(self, block: FeatureBlock, drop: NDArray[np.bool_]) -> FeatureBlock:
        """Some requests come without context, encoded as batch scoring encodes its absence."""
        columns = block.single.shape[1] + len(block.multi) + block.dense.shape[1]
        if not columns or not drop.any():
            return block
        dropped = torch.from_numpy(drop)
        absent = self._no_context
        single, dense = block.single.clone(), block.dense.clone()
        single[dropped], dense[dropped] = absent.single, absent.dense
        multi = zip(block.multi, absent.multi, strict=True)
        return FeatureBlock(single, tuple(_replaced(*two, dropped) for two in multi), dense)


def without_ids(
    block: FeatureBlock, columns: tuple[int, ...], drop: NDArray[np.bool_]
) -> FeatureBlock:
    """Some ids become the unknown id: what a row without its own training rows looks like."""
    if not columns or not drop.any():
        return block
    single = block.single.clone()
    dropped = torch.from_numpy(drop)
    for column in columns:
        single[dropped, column] = int(UNKNOWN_HASH)
    return FeatureBlock(single, block.multi, block.dense)


def _share(count: int, rank: int, world: int) -> slice:
    """Rows of a rank: contiguous, all of ceil(count / world) but the last ones."""
    step = -(-count // world)
    return slice(rank * step, (rank + 1) * step)


def prefetch(make: Callable[[int], _Batch], steps: range, depth: int = 4) -> Iterator[_Batch]:
    """Yield make(step) for every step, made ahead by one background thread.

    An error in the thread is raised here; leaving the iteration early ends the thread.
    """
    ready: queue.Queue[_Batch | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(value: _Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(value, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in steps:
                if stopped.is_set():
                    return
                put(make(step))
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (value := ready.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()


def _replaced(jagged: Jagged, one: Jagged, rows: Tensor) -> Jagged:
    """Return `jagged` with the single row of `one` at `rows` (N,) bool."""
    offsets = torch.cat([jagged.offsets, jagged.offsets[-1:] + one.offsets[1:]])
    both = Jagged(torch.cat([jagged.values, one.values]), offsets)
    return both.take(torch.where(rows, len(jagged), torch.arange(len(jagged))))


def _distinct_rows(
    candidates: NDArray[np.int64], history: NDArray[np.int64], num_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return distinct item rows, candidates first, and where each event of `history` is there."""
    slot = np.full(num_items, -1, np.int64)
    slot[candidates] = np.arange(len(candidates))
    extra = np.unique(history[slot[history] < 0])
    slot[extra] = len(candidates) + np.arange(len(extra))
    return np.concatenate([candidates, extra]), slot[history]
