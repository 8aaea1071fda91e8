"""Batches: complete, repeatable, without a leak, each distinct item once."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.dataset import Dataset
from features.hashing import UNKNOWN_HASH
from features.loader import LoaderConfig, PairLoader, prefetch
from features.sampling import log_inclusion
from features.split import TRAIN
from recsys.batch import PairBatch

PLAIN = LoaderConfig(
    batch_size=256,
    uniform_negatives=16,
    history_length=6,
    id_dropout=0.0,
    context_dropout=0.0,
    seed=7,
)


@pytest.fixture
def loader(dataset: Dataset) -> PairLoader:
    return PairLoader(dataset, PLAIN)


def test_an_epoch_sees_every_training_row_once(loader: PairLoader) -> None:
    seen = torch.cat([batch.examples for batch in loader.epoch(0)])
    assert sorted(seen.tolist()) == loader.data.events_of((TRAIN,)).tolist()
    other = torch.cat([batch.examples for batch in loader.epoch(1)])
    assert seen.tolist() != other.tolist()


def flat(batch: PairBatch) -> list[list[float]]:
    tensors = [batch.item_rows, batch.positive, batch.history.values, batch.examples]
    tensors += [batch.items.single, batch.query.single, batch.log_inclusion]
    return [tensor.flatten().tolist() for tensor in tensors]


def test_a_batch_is_a_function_of_seed_epoch_and_step(dataset: Dataset) -> None:
    config = replace(PLAIN, id_dropout=0.3, context_dropout=0.3)
    whole = [flat(batch) for batch in PairLoader(dataset, config).epoch(3)]
    later = [flat(batch) for batch in PairLoader(dataset, config).epoch(3, first_step=2)]
    assert later == whole[2:]
    assert flat(PairLoader(dataset, config).batch(3, 1)) == whole[1]
    assert flat(PairLoader(dataset, replace(config, seed=8)).batch(3, 1)) != whole[1]


def test_batches_hold_what_a_loop_over_events_finds(loader: PairLoader) -> None:
    events, part = loader.data.tables.events, loader.data.part
    batch = loader.batch(0, 1)
    rows = batch.item_rows.tolist()
    assert len(set(rows)) == len(rows)  # each item once: no accidental hit is possible
    for query, number in enumerate(batch.examples.tolist()):
        user, time = events.user_row[number], events.time[number]
        assert rows[batch.positive[query]] == events.item_row[number]
        mine = (events.user_row == user) & (events.time < time) & (part == TRAIN)
        expected = events.item_row[mine][-6:].tolist()
        start, stop = batch.history.offsets[query], batch.history.offsets[query + 1]
        assert [rows[slot] for slot in batch.history.values[start:stop].tolist()] == expected
        user_columns = loader.data.users.single.shape[1]
        assert torch.equal(
            batch.query.single[query, :user_columns], loader.data.users.single[int(user)]
        )
    assert torch.equal(batch.items.single, loader.data.items.single[batch.item_rows])


def test_ids_drop_at_their_rate_and_nothing_else_does(dataset: Dataset) -> None:
    batch = PairLoader(dataset, replace(PLAIN, id_dropout=0.25)).batch(0, 0)
    plain = PairLoader(dataset, PLAIN).batch(0, 0)
    column = dataset.encoder.id_columns("users")[0]
    dropped = batch.query.single[:, column] == int(UNKNOWN_HASH)
    assert 0.15 < float(dropped.float().mean()) < 0.35
    assert torch.equal(batch.query.single[~dropped], plain.query.single[~dropped])
    batch.query.single[:, column] = plain.query.single[:, column]
    assert torch.equal(batch.query.single, plain.query.single)


def test_inclusion_probability_matches_frequency_of_candidates() -> None:
    counts = np.array([50, 30, 15, 5, 0])
    expected = np.exp(log_inclusion(counts, batch_size=4, uniform_negatives=2))
    rng = np.random.default_rng(0)
    drawn = np.zeros(5)
    for _ in range(20_000):
        rows = rng.choice(5, 4, p=counts / 100)
        drawn[np.unique(np.concatenate([rows, rng.integers(0, 5, 2)]))] += 1
    np.testing.assert_allclose(expected, drawn / 20_000, atol=0.015)
    assert np.isfinite(log_inclusion(counts, batch_size=4, uniform_negatives=0)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12), st.integers(1, 12))
def test_prefetch_keeps_order_raises_errors_and_ends_its_thread(stop: int, fails: int) -> None:
    def make(step: int) -> int:
        if step == fails:
            raise RuntimeError("step failed")
        return step

    def run() -> Iterator[int]:
        yield from prefetch(make, range(stop))  # type: ignore[arg-type,misc]

    if fails < stop:
        with pytest.raises(RuntimeError, match="step failed"):
            list(run())
    else:
        assert list(run()) == list(range(stop))
    started = prefetch(make, range(100))  # type: ignore[arg-type]
    next(started)
    started.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]
