"""Training batches as a pure function of (seed, epoch, step): nothing to save, nothing to lose.

Every distinct item of a batch (positives, uniform negatives, histories) is in it once, so
it is looked up and encoded once, however often the batch mentions it.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, Jagged, PairBatch
from recsys.features.batches.examples import Examples, Kind, Rows, Users
from recsys.features.batches.parts import distinct_rows, share_of, with_absent
from recsys.features.batches.sampling import log_inclusion
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.hashing import UNKNOWN_HASH

with on_first_use():
    import torch

_Batch = TypeVar("_Batch")


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """What a batch is made of; the fields mean what the training section says of them.

    whole_catalogue: every item is a candidate of every batch. mask_taken: items a user interacted
    with in training are not negatives of theirs. trained_only: items without a training row are
    neither drawn nor in the whole catalogue. targets: only training rows that are asked for are to
    be found; else all are.
    """

    batch_size: int
    uniform_negatives: int
    history_length: int
    id_dropout: float
    context_dropout: float
    seed: int
    examples: Kind = "rows"
    positives: int = 1
    cut_history: bool = True
    whole_catalogue: bool = False
    mask_taken: bool = False
    trained_only: bool = False
    targets: bool = True
    history_gap_seconds: float = 0


class PairLoader:
    """Draws `PairBatch`es from the training rows of a data set."""

    def __init__(self, data: Dataset, config: LoaderConfig) -> None:
        self.data = data
        self.config = config
        self.examples: Examples
        if config.examples == "rows":
            self.examples = Rows(
                data,
                config.history_length,
                targets=config.targets,
                gap_seconds=config.history_gap_seconds,
            )
        else:
            roles = data.schema.interactions
            ordered = roles.time is not None or roles.order is not None
            self.examples = Users(
                data,
                config.history_length,
                config.positives,
                ordered=ordered,
                cut=config.cut_history,
                targets=config.targets,
                gap_seconds=config.history_gap_seconds,
            )
        drawable = data.train_counts > 0 if config.trained_only else np.ones(data.num_items, bool)
        self.drawable = np.flatnonzero(drawable)
        self.training_items = data.histories((TRAIN,)) if config.mask_taken else None
        self.log_inclusion = torch.from_numpy(self._log_inclusion())
        self._item_ids = data.encoder.id_columns("items")
        self._user_ids = data.encoder.id_columns("users")
        self._no_context = data.encoder.encode("interactions", pa.table({"none": pa.nulls(1)}))

    @property
    def num_steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.examples) // self.config.batch_size)

    def batch(
        self,
        epoch: int,
        step: int,
        order: NDArray[np.int64] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> PairBatch:
        """Return batch number `step` of `epoch`; `order` is `self.order(epoch)` if computed.

        All random numbers are drawn for the whole batch, of which rank `rank` of `world` gets
        the queries rank, rank + world, ... and its share of the items.
        """
        size, num_items = self.config.batch_size, self.data.num_items
        chosen = (self.order(epoch) if order is None else order)[step * size : (step + 1) * size]
        rng = self._rng(epoch, step + 1)
        events = self.data.tables.events
        drawn = self.examples.draw(chosen, rng)
        positive_rows = events.item_row[drawn.events].astype(np.int64)
        if self.config.whole_catalogue:
            candidates = self.drawable
        else:
            drawn_rows = rng.integers(0, len(self.drawable), self.config.uniform_negatives)
            negatives = self.drawable[drawn_rows]
            candidates = distinct(np.concatenate([positive_rows, negatives]))
        item_rows, slot = distinct_rows(candidates, drawn.history.values.numpy(), num_items)
        item_rows_tensor = torch.from_numpy(item_rows)
        own_items = share_of(len(item_rows), rank, world)
        drop_item, drop_user, drop_context = self._drops(len(item_rows), len(drawn.users), rng)
        own = np.arange(rank, len(drawn.users), world)
        pairs = np.flatnonzero(drawn.asks % world == rank)
        users = drawn.users[own]
        history = drawn.history if world == 1 else drawn.history.take(torch.from_numpy(own))
        items = self.data.items.take(item_rows_tensor[own_items])
        user_block = self.data.users.take(torch.from_numpy(users))
        context = self.data.context.take(torch.from_numpy(drawn.context[own]))
        asks, positive = drawn.asks[pairs] // world, slot[positive_rows[pairs]]
        return PairBatch(
            items=without_ids(items, self._item_ids, drop_item[own_items]),
            item_rows=item_rows_tensor,
            num_candidates=len(candidates),
            query=without_ids(user_block, self._user_ids, drop_user[own]).beside(
                with_absent(context, self._no_context, drop_context[own])
            ),
            history=Jagged(torch.from_numpy(slot[history.values.numpy()]), history.offsets),
            asks=torch.from_numpy(asks),
            positive=torch.from_numpy(positive),
            not_negative=self._not_negative(users, asks, positive, slot, len(candidates)),
            log_inclusion=self.log_inclusion[item_rows_tensor[: len(candidates)]],
            weight=torch.from_numpy(events.weight[drawn.events[pairs]]),
            examples=torch.from_numpy(drawn.events[pairs]),
        )

    def _not_negative(
        self,
        users: NDArray[np.int64],
        asks: NDArray[np.int64],
        positive: NDArray[np.int64],
        slot: NDArray[np.int64],
        num_candidates: int,
    ) -> Jagged:
        """Return each query's positives and, where asked, all training items of its user."""
        if self.training_items is None:
            return Jagged.of_lengths(positive, np.bincount(asks, minlength=len(users)))
        training_items = self.training_items.last(users)
        owner = np.repeat(np.arange(len(users)), training_items.lengths().numpy())
        place = slot[training_items.values.numpy()]
        among = (place >= 0) & (place < num_candidates)
        pairs = distinct(owner[among] * num_candidates + place[among])
        owner, place = np.divmod(pairs, num_candidates)
        return Jagged.of_lengths(place, np.bincount(owner, minlength=len(users)))

    def _log_inclusion(self) -> NDArray[np.float32]:
        """Return log of the probability that each item is a candidate, (n_items,)."""
        config, data = self.config, self.data
        if config.whole_catalogue:
            return np.zeros(data.num_items, np.float32)
        rows = data.targets_of((TRAIN,)) if config.targets else data.events_of((TRAIN,))
        counts = np.bincount(data.tables.events.item_row[rows], minlength=data.num_items)
        num_rows = int(counts.sum())
        rows_a_batch = config.batch_size * num_rows / len(self.examples)
        if config.examples == "users":
            # On average: a user has its rows after the cut in the batch, `positives` at most.
            lengths = np.bincount(data.tables.events.user_row[rows])
            lengths = lengths[lengths > 0]
            left = (lengths + 1) / 2 if config.cut_history else lengths
            rows_a_batch = config.batch_size * float(np.minimum(left, config.positives).mean())
        found = np.full(len(counts), -np.log(num_rows), np.float32)
        found[self.drawable] = log_inclusion(
            counts[self.drawable],
            batch_size=min(round(rows_a_batch), num_rows),
            uniform_negatives=config.uniform_negatives,
        )
        return found

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the permutation of the examples that `epoch` follows."""
        return self._rng(epoch, 0).permutation(len(self.examples))

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
