"""Training batches of sessions as a pure function of (seed, epoch, step).

A window is a piece of a session's training events: its inputs, and after each of them the event
that came next, the target. Every distinct item of a batch is in it once.

Shape letters: B windows of a batch, T steps of all their inputs, P steps that ask.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.errors import DataError
from recsys.core.imports import on_first_use
from recsys.data.batch import History, Jagged, SessionBatch
from recsys.features.batches.pairs import prefetch, without_ids
from recsys.features.batches.parts import distinct_rows, share_of, with_absent
from recsys.features.batches.sampling import log_inclusion_of_draws, log_missed_targets
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions, history_of, pieces
from recsys.features.dataset.split import TRAIN

with on_first_use():
    import torch

Windows = Literal["last", "slide"]
Positions = Literal["all", "last", "random_prefix"]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SessionLoaderConfig:
    """What a batch is made of; the fields mean what the training section says of them.

    batch_size: windows a batch. max_length: inputs a window.
    windows: `last`, of each session the last max_length inputs; `slide`, as many windows, from the
    end of the session, as make every event but its first a target once.
    positions: which steps ask for what came next: `all`, the `last`, or the last of a prefix
    whose length is drawn again at each epoch.
    whole_catalogue: every item is a candidate. Else the candidates are `uniform_negatives` items,
    the items of `frequent_negatives` training rows and, with `batch_negatives`, the targets.
    id_dropout: share of a batch's distinct items, and of its windows' users, without id.
    event_dropout: share of steps without what is known of the event and without gap.
    step_dropout: share of the inputs that are removed, never the last one; a removed step asks
    nothing, the step before it asks for it all the same.
    trained_only: items without a training row are neither drawn nor in the whole catalogue.
    targets: only events that are asked for are targets, a window ends with the last of them, and
    one without any is none; else all events but a session's first are targets.
    """

    batch_size: int
    max_length: int
    windows: Windows
    positions: Positions
    whole_catalogue: bool
    uniform_negatives: int
    frequent_negatives: int
    batch_negatives: bool
    id_dropout: float
    event_dropout: float
    step_dropout: float
    trained_only: bool
    seed: int
    targets: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_length < 1:
            raise ValueError(
                f"batch_size {self.batch_size} and max_length {self.max_length} must be at least 1"
            )
        drawn = self.uniform_negatives + self.frequent_negatives
        if not (self.whole_catalogue or drawn or self.batch_negatives):
            raise ValueError(
                "a batch without candidates: set whole_catalogue, batch_negatives, "
                "uniform_negatives or frequent_negatives"
            )


@dataclass(frozen=True)
class _Steps:
    """The inputs of a batch; each window has one at least.

    at (T,) places among the training events; owner (T,) window of the batch, ascending; asks (T,)
    whether an input asks for the event at the next place.
    """

    at: _Ints
    owner: _Ints
    asks: NDArray[np.bool_]


class SessionLoader:
    """Draws `SessionBatch`es from the training events of sessions."""

    def __init__(self, data: Dataset, sessions: Sessions, config: SessionLoaderConfig) -> None:
        """Lay out the windows.

        Raises:
            DataError: no session has two training events.
        """
        self.data = data
        self.config = config
        trained = sessions.only(data.part == TRAIN)
        check_next_items(trained)
        self.events = trained.order
        target = data.tables.events.target if config.targets else None
        self._next_asked = None if target is None else np.append(target[self.events[1:]], False)
        self._owner, self._starts, self._lengths = _windows(
            trained.offsets, config, self._next_asked
        )
        check_targets(len(self._starts))
        self._users = trained.user[self._owner]
        drawable = data.train_counts > 0 if config.trained_only else np.ones(data.num_items, bool)
        self.drawable = np.flatnonzero(drawable)
        self._training_items = data.tables.events.item_row[data.part == TRAIN]
        self.log_inclusion = torch.from_numpy(self._log_inclusion())
        self._item_ids = data.encoder.id_columns("items")
        self._user_ids = data.encoder.id_columns("users")
        self._no_event = data.encoder.encode("interactions", pa.table({"none": pa.nulls(1)}))

    @property
    def num_windows(self) -> int:
        """Windows of an epoch, each of which it sees once."""
        return len(self._starts)

    @property
    def num_steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-self.num_windows // self.config.batch_size)

    def batch(
        self,
        epoch: int,
        step: int,
        order: _Ints | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> SessionBatch:
        """Return batch number `step` of `epoch`; `order` is `self.order(epoch)` if computed.

        All random numbers are drawn for the whole batch, of which rank `rank` of `world` gets
        the windows rank, rank + world, ... and its share of the items.
        """
        size, data = self.config.batch_size, self.data
        chosen = (self.order(epoch) if order is None else order)[step * size : (step + 1) * size]
        rng = self._rng(epoch, step + 1)
        steps = self._inputs(chosen, rng)
        item_of = data.tables.events.item_row
        input_items = item_of[self.events[steps.at]].astype(np.int64)
        targets = item_of[self.events[steps.at[steps.asks] + 1]].astype(np.int64)
        candidates = self._candidates(targets, rng)
        item_rows, slot = distinct_rows(
            candidates, np.concatenate([targets, input_items]), data.num_items
        )
        drop_item = _drawn(rng, self.config.id_dropout, len(item_rows))
        drop_user = _drawn(rng, self.config.id_dropout, len(chosen))
        drop_event = _drawn(rng, self.config.event_dropout, len(steps.at))
        own = np.arange(rank, len(chosen), world)
        own_steps = np.flatnonzero(steps.owner % world == rank)
        lengths = np.bincount(steps.owner, minlength=len(chosen))[own]
        asks = np.flatnonzero(steps.asks[own_steps])
        asked_for = self.events[steps.at[own_steps[asks]] + 1]
        own_items = share_of(len(item_rows), rank, world)
        items = data.items.take(torch.from_numpy(item_rows[own_items]))
        users = data.users.take(torch.from_numpy(self._users[chosen[own]]))
        return SessionBatch(
            items=without_ids(items, self._item_ids, drop_item[own_items]),
            item_rows=torch.from_numpy(item_rows),
            num_candidates=len(candidates),
            users=without_ids(users, self._user_ids, drop_user[own]),
            history=self._history(steps.at[own_steps], lengths, slot, drop_event[own_steps]),
            asks=torch.from_numpy(asks),
            positive=torch.from_numpy(slot[item_of[asked_for]]),
            log_inclusion=self.log_inclusion[torch.from_numpy(candidates)],
            weight=torch.from_numpy(data.tables.events.weight[asked_for]),
            examples=torch.from_numpy(asked_for),
        )

    def order(self, epoch: int) -> _Ints:
        """Return the permutation of the windows that `epoch` follows."""
        return self._rng(epoch, 0).permutation(self.num_windows)

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[SessionBatch]:
        """Yield the batches of `epoch` from `first_step` on, made ahead in one thread."""
        order = self.order(epoch)
        return prefetch(
            lambda step: self.batch(epoch, step, order, rank=rank, world=world),
            range(first_step, self.num_steps),
        )

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.config.seed, epoch << 32 | stream]))

    def _inputs(self, chosen: _Ints, rng: np.random.Generator) -> _Steps:
        """Return the inputs of the windows `chosen` (B,), some removed."""
        config, lengths = self.config, self._lengths[chosen]
        if config.positions == "random_prefix":
            lengths = self._prefixes(chosen, rng.random(len(chosen)))
        at = pieces(self._starts[chosen], lengths)
        owner = np.repeat(np.arange(len(chosen)), lengths)
        last = np.zeros(len(at), bool)
        last[np.cumsum(lengths) - 1] = True
        asks = last
        if config.positions == "all":
            asks = np.ones(len(at), bool) if self._next_asked is None else self._next_asked[at]
        if not config.step_dropout:
            return _Steps(at, owner, asks)
        stays = ~_drawn(rng, config.step_dropout, len(at)) | last
        return _Steps(at[stays], owner[stays], asks[stays])

    def _prefixes(self, chosen: _Ints, drawn: NDArray[np.float64]) -> _Ints:
        """Return the length of a prefix of each window `chosen` (B,), its last input one that asks.

        drawn: (B,) from 0 to 1.
        """
        lengths = self._lengths[chosen]
        if self._next_asked is None:
            return 1 + (drawn * lengths).astype(np.int64)
        at = pieces(self._starts[chosen], lengths)
        asks = np.flatnonzero(self._next_asked[at])
        owner = np.repeat(np.arange(len(chosen)), lengths)[asks]
        count = np.bincount(owner, minlength=len(chosen))
        one = np.cumsum(count) - count + (drawn * count).astype(np.int64)
        return asks[one] - (np.cumsum(lengths) - lengths) + 1

    def _candidates(self, targets: _Ints, rng: np.random.Generator) -> _Ints:
        """Return the distinct rows of the loss's negatives, ascending."""
        config = self.config
        if config.whole_catalogue:
            return self.drawable
        uniform = self.drawable[rng.integers(0, len(self.drawable), config.uniform_negatives)]
        rows = self._training_items[
            rng.integers(0, len(self._training_items), config.frequent_negatives)
        ]
        found = [uniform, rows.astype(np.int64), *([targets] if config.batch_negatives else [])]
        return distinct(np.concatenate(found))

    def _history(self, at: _Ints, lengths: _Ints, slot: _Ints, drop: NDArray[np.bool_]) -> History:
        """Return the inputs at `at` (T,), some without what is known of their event."""
        history = history_of(self.data, self.events[at], lengths)
        items = Jagged(torch.from_numpy(slot[history.items.values.numpy()]), history.items.offsets)
        gap = history.gap.masked_fill(torch.from_numpy(drop), torch.nan)
        return History(items, with_absent(history.features, self._no_event, drop), gap)

    def _log_inclusion(self) -> NDArray[np.float32]:
        """Return log of the probability that each item is a candidate, (num_items,)."""
        config, data = self.config, self.data
        if config.whole_catalogue:
            return np.zeros(data.num_items, np.float32)
        missed = None
        if config.batch_negatives:
            at = pieces(self._starts, self._lengths)
            window = np.repeat(np.arange(self.num_windows), self._lengths)
            missed = log_missed_targets(
                window,
                data.tables.events.item_row[self.events[at + 1]].astype(np.int64),
                self._asked(window),
                num_items=data.num_items,
                num_windows=self.num_windows,
                batch_size=min(config.batch_size, self.num_windows),
                one_a_window=config.positions != "all",
            )
        return log_inclusion_of_draws(
            data.train_counts,
            self.drawable,
            missed,
            uniform_negatives=config.uniform_negatives,
            frequent_negatives=config.frequent_negatives,
        )

    def _asked_targets(self, window: _Ints) -> NDArray[np.float64]:
        """Return the same where some events alone are targets."""
        assert self._next_asked is not None
        asks = self._next_asked[pieces(self._starts, self._lengths)]
        if self.config.positions == "random_prefix":
            return np.where(asks, 1 / np.bincount(window[asks])[window], 0.0)
        last = np.zeros(len(window), bool)
        last[np.cumsum(self._lengths) - 1] = True
        others = 1 - self.config.step_dropout if self.config.positions == "all" else 0.0
        return np.where(last, 1.0, np.where(asks, others, 0.0))

    def _asked(self, window: _Ints) -> NDArray[np.float64]:
        """Return the probability that each input of its window asks, (N,)."""
        if self._next_asked is not None:
            return self._asked_targets(window)
        if self.config.positions == "random_prefix":
            return 1 / self._lengths[window]
        last = np.zeros(len(window))
        last[np.cumsum(self._lengths) - 1] = 1
        others = 1 - self.config.step_dropout if self.config.positions == "all" else 0.0
        return np.where(last > 0, 1.0, others)


def check_targets(num_windows: int) -> None:
    """Refuse training events none of which is a target behind another event of its session.

    Raises:
        DataError: they are such.
    """
    if not num_windows:
        raise DataError(
            "no target of the training rows has an earlier row in its session: nothing to learn",
            remedy="see interactions.targets, training.towards and sessions",
        )


def check_next_items(trained: Sessions) -> None:
    """Refuse sessions of training events of which none has a second event.

    Raises:
        DataError: they are such.
    """
    if not (trained.lengths() > 1).any():
        raise DataError(
            f"none of {len(trained):,} sessions has two training rows: no next item to learn",
            remedy="see schema.interactions.session, sessions.inactivity_minutes and split",
        )


def _windows(
    offsets: _Ints, config: SessionLoaderConfig, next_asked: NDArray[np.bool_] | None
) -> tuple[_Ints, _Ints, _Ints]:
    """Return session, place of the first input and number of inputs of each window, (W,).

    next_asked: (E,) whether the event after each one is a target; None: all are.
    """
    inputs = np.diff(offsets) - 1
    if next_asked is not None:
        inputs = _until_the_last(next_asked, offsets[:-1], inputs)
    count = -(-inputs // config.max_length)
    if config.windows == "last":
        count = np.minimum(count, 1)
    owner = np.repeat(np.arange(len(inputs)), count)
    from_end = pieces(np.zeros(len(count), np.int64), count)
    ends = inputs[owner] - from_end * config.max_length
    starts = np.maximum(ends - config.max_length, 0)
    starts, lengths = offsets[owner] + starts, ends - starts
    if next_asked is None:
        return owner, starts, lengths
    lengths = _until_the_last(next_asked, starts, lengths)
    some = lengths > 0
    return owner[some], starts[some], lengths[some]


def _until_the_last(next_asked: NDArray[np.bool_], starts: _Ints, lengths: _Ints) -> _Ints:
    """Return how many inputs each run has up to the last that asks, 0 where none does."""
    places = np.arange(1, len(next_asked) + 1)
    last = np.maximum.accumulate(np.where(next_asked, places, 0))
    ends = starts + lengths
    found = np.where(ends > 0, last[np.maximum(ends - 1, 0)], 0) - starts
    return np.where(lengths > 0, np.clip(found, 0, lengths), 0)


def _drawn(rng: np.random.Generator, share: float, count: int) -> NDArray[np.bool_]:
    return rng.random(count) < share if share else np.zeros(count, bool)
