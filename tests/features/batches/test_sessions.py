"""Batches of sessions: complete, repeatable, without a leak, with the right odds of sampling."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.batch import SessionBatch
from recsys.features.batches.sessions import SessionLoader, SessionLoaderConfig
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import SessionConfig, Sessions, cut_sessions
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.hashing import UNKNOWN_HASH, hash_values

SessionData = Callable[..., Dataset]
PLAIN = SessionLoaderConfig(
    batch_size=6,
    max_length=4,
    windows="slide",
    positions="all",
    whole_catalogue=False,
    uniform_negatives=3,
    frequent_negatives=2,
    batch_negatives=True,
    id_dropout=0.0,
    event_dropout=0.0,
    step_dropout=0.0,
    trained_only=False,
    seed=7,
)
CONTEXT: tuple[dict[str, Any], ...] = (
    {"name": "price", "table": "interactions", "kind": "numeric"},
    {"name": "tags", "table": "interactions", "kind": "multi_categorical"},
)


def random_log(
    session_data: SessionData, seed: int, events: int = 90, users: int = 5, items: int = 12
) -> Dataset:
    """Interleaved sessions of a few users; a fifth of the rows is validation, a fifth test."""
    rng = np.random.default_rng(seed)
    return session_data(
        rng.integers(0, users, events).tolist(),
        rng.integers(0, items, events).tolist(),
        time=rng.integers(1, 40, events).tolist(),
        session=rng.integers(0, 3, events).tolist(),
        part=rng.choice(3, events, p=[0.6, 0.2, 0.2]).tolist(),
        num_items=items + 3,
        features=CONTEXT,
        context={
            "price": rng.normal(size=events),
            "tags": [[k % 5, k % 3][: k % 3] for k in range(events)],
        },
    )


@pytest.fixture(scope="module")
def data(session_data: SessionData) -> Dataset:
    return random_log(session_data, 0)


def sessions_of(data: Dataset) -> Sessions:
    return cut_sessions(data, SessionConfig())


def training_sessions(data: Dataset) -> list[list[int]]:
    """Return the training events of each session, oldest first, by a loop."""
    sessions = sessions_of(data)
    whole = np.split(sessions.order, sessions.offsets[1:-1])
    return [[e for e in one.tolist() if data.part[e] == TRAIN] for one in whole]


def inputs(data: Dataset, batch: SessionBatch) -> list[list[int]]:
    """Return the event numbers of the steps of each window, found by their feature `serial`."""
    serial = data.tables.events.context.column("serial")
    event_of = {value: number for number, value in enumerate(hash_values(serial).tolist())}
    steps = [event_of[value] for value in batch.history.features.single[:, 0].tolist()]
    bounds = batch.history.items.offsets.tolist()
    return [steps[a:b] for a, b in pairwise(bounds)]


def asked(batch: SessionBatch) -> list[tuple[int, int]]:
    """Return (window, place in it) of each step that asks."""
    bounds = batch.history.items.offsets
    window = torch.searchsorted(bounds, batch.asks, right=True) - 1
    return list(zip(window.tolist(), (batch.asks - bounds[window]).tolist(), strict=True))


def flat(batch: SessionBatch) -> list[Any]:
    history = batch.history
    tensors = [batch.items.single, batch.item_rows, batch.users.single, history.items.values]
    tensors += [history.items.offsets, history.features.single, history.features.dense.nan_to_num()]
    tensors += [history.features.multi[0].values, history.gap.nan_to_num(nan=-1), batch.asks]
    tensors += [batch.positive, batch.log_inclusion, batch.weight, batch.examples]
    return [batch.num_candidates, *(tensor.tolist() for tensor in tensors)]


@settings(max_examples=30)
@given(st.integers(0, 20), st.integers(1, 9), st.integers(1, 12), st.integers(0, 3))
def test_every_training_event_with_an_earlier_one_is_a_target_once_an_epoch(
    session_data: SessionData, seed: int, max_length: int, batch_size: int, epoch: int
) -> None:
    data = random_log(session_data, seed)
    config = replace(PLAIN, max_length=max_length, batch_size=batch_size)
    loader = SessionLoader(data, sessions_of(data), config)
    batches = list(loader.epoch(epoch))
    assert len(batches) == loader.num_steps
    seen = [event for batch in batches for event in batch.examples.tolist()]
    assert sorted(seen) == sorted(e for one in training_sessions(data) for e in one[1:])
    for batch in batches:
        assert len(batch.history) <= batch_size
        assert int(batch.history.lengths().min()) >= 1
        assert int(batch.history.lengths().max()) <= max_length


def check(data: Dataset, batch: SessionBatch) -> None:
    """Hold a batch without dropouts against loops over the log."""
    events, rows = data.tables.events, batch.item_rows.tolist()
    following = {a: b for one in training_sessions(data) for a, b in pairwise(one)}
    assert len(set(rows)) == len(rows)
    assert batch.asks.tolist() == sorted(set(batch.asks.tolist()))
    windows = inputs(data, batch)
    for number, steps in enumerate(windows):
        assert all(data.part[event] == TRAIN for event in steps)
        assert all(following[a] == b for a, b in pairwise(steps))
        user = int(events.user_row[steps[0]])
        assert torch.equal(batch.users.single[number], data.users.single[user])
    flat_steps = [event for steps in windows for event in steps]
    taken = [rows[slot] for slot in batch.history.items.values.tolist()]
    assert taken == events.item_row[flat_steps].tolist()
    of_steps = data.context.take(torch.tensor(flat_steps))
    assert torch.equal(batch.history.features.dense, of_steps.dense)
    assert torch.equal(batch.history.features.multi[0].values, of_steps.multi[0].values)
    passed = [
        0.0 if place == 0 else (events.time[event] - events.time[steps[place - 1]]) / 1e6
        for steps in windows
        for place, event in enumerate(steps)
    ]
    assert batch.history.gap.tolist() == passed
    assert batch.examples.tolist() == [following[windows[w][p]] for w, p in asked(batch)]
    assert [rows[slot] for slot in batch.positive.tolist()] == events.item_row[
        batch.examples.numpy()
    ].tolist()
    assert batch.weight.tolist() == events.weight[batch.examples.numpy()].tolist()
    assert torch.equal(batch.items.single, data.items.single[batch.item_rows])


@pytest.mark.parametrize("windows", ["slide", "last"])
@pytest.mark.parametrize("positions", ["all", "last", "random_prefix"])
def test_batches_hold_what_loops_over_the_log_find(
    data: Dataset, windows: Any, positions: Any
) -> None:
    config = replace(PLAIN, windows=windows, positions=positions)
    loader = SessionLoader(data, sessions_of(data), config)
    for batch in loader.epoch(1):
        check(data, batch)
        wanted = set(batch.positive.tolist())
        assert max(wanted) < batch.num_candidates
        extra = batch.num_candidates - len(wanted)
        assert 0 <= extra <= config.uniform_negatives + config.frequent_negatives
        if positions == "all":
            assert batch.asks.tolist() == list(range(len(batch.history.gap)))
        else:
            assert batch.asks.tolist() == (batch.history.items.offsets[1:] - 1).tolist()


def test_the_last_window_of_a_session_holds_its_last_training_events(data: Dataset) -> None:
    config = replace(PLAIN, windows="last", batch_size=100)
    batch = SessionLoader(data, sessions_of(data), config).batch(0, 0)
    expected = [one[:-1][-4:] for one in training_sessions(data) if len(one) > 1]
    assert sorted(inputs(data, batch)) == sorted(expected)


def test_windows_slide_from_the_end(session_data: SessionData) -> None:
    data = session_data([0] * 10, range(10), features=CONTEXT, context=empty_context(10))
    batch = SessionLoader(data, sessions_of(data), replace(PLAIN, max_length=4)).batch(0, 0)
    assert sorted(inputs(data, batch)) == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert sorted(batch.examples.tolist()) == list(range(1, 10))


def empty_context(count: int) -> dict[str, Any]:
    return {"price": [1.0] * count, "tags": [[1]] * count}


def test_a_batch_is_a_function_of_seed_epoch_and_step(data: Dataset) -> None:
    config = replace(
        PLAIN, id_dropout=0.3, event_dropout=0.3, step_dropout=0.3, positions="random_prefix"
    )
    sessions = sessions_of(data)
    whole = [flat(batch) for batch in SessionLoader(data, sessions, config).epoch(3)]
    later = [flat(batch) for batch in SessionLoader(data, sessions, config).epoch(3, first_step=2)]
    assert later == whole[2:]
    assert flat(SessionLoader(data, sessions, config).batch(3, 1)) == whole[1]
    for other in (replace(config, seed=8), config):
        epoch = 3 if other.seed == 8 else 4
        assert flat(SessionLoader(data, sessions, other).batch(epoch, 1)) != whole[1]


@pytest.mark.parametrize("world", [2, 3, 8])
def test_the_ranks_together_hold_the_whole_batch(data: Dataset, world: int) -> None:
    config = replace(PLAIN, id_dropout=0.3, event_dropout=0.3, step_dropout=0.3, batch_size=7)
    loader = SessionLoader(data, sessions_of(data), config)
    for epoch in range(5):
        whole = loader.batch(epoch, 0)
        parts = [loader.batch(epoch, 0, rank=rank, world=world) for rank in range(world)]
        check_ranks(whole, parts)


def check_ranks(whole: SessionBatch, parts: list[SessionBatch]) -> None:
    world = len(parts)
    together = torch.cat([one.items.single for one in parts])
    assert torch.equal(together, whole.items.single)
    for rank, one in enumerate(parts):
        assert torch.equal(one.item_rows, whole.item_rows)
        assert torch.equal(one.log_inclusion, whole.log_inclusion)
        assert one.num_candidates == whole.num_candidates
        own = torch.arange(rank, len(whole.history), world)
        wanted = whole.history.take(own)
        assert torch.equal(one.users.single, whole.users.single[own])
        assert torch.equal(one.history.items.values, wanted.items.values)
        assert torch.equal(one.history.items.offsets, wanted.items.offsets)
        assert torch.equal(one.history.features.single, wanted.features.single)
        assert torch.equal(one.history.features.dense, wanted.features.dense)
        assert torch.equal(one.history.gap.nan_to_num(-1), wanted.gap.nan_to_num(-1))
    answers = {
        (rank + world * window, place, event, slot, weight)
        for rank, one in enumerate(parts)
        for (window, place), event, slot, weight in rows_of(one)
    }
    assert answers == {(*at, *rest) for at, *rest in rows_of(whole)}


def rows_of(batch: SessionBatch) -> list[tuple[Any, ...]]:
    lists = (batch.examples.tolist(), batch.positive.tolist(), batch.weight.tolist())
    return list(zip(asked(batch), *lists, strict=True))


def test_a_prefix_is_as_long_as_chance_will_have_it(session_data: SessionData) -> None:
    data = session_data([0] * 6, range(6), features=CONTEXT, context=empty_context(6))
    config = replace(PLAIN, max_length=5, positions="random_prefix")
    loader = SessionLoader(data, sessions_of(data), config)
    counts = Counter(int(loader.batch(epoch, 0).examples) for epoch in range(2_000))
    assert sorted(counts) == [1, 2, 3, 4, 5]
    assert min(counts.values()) > 300
    assert max(counts.values()) < 500


def test_steps_taken_out_ask_nothing_and_are_still_asked_for(data: Dataset) -> None:
    config = replace(PLAIN, step_dropout=0.4, batch_size=100, max_length=6)
    sessions = sessions_of(data)
    following: dict[int, int] = {}
    for one in training_sessions(data):
        following |= dict(pairwise(one))
    plain = SessionLoader(data, sessions, replace(config, step_dropout=0.0))
    left, whole, lasts = 0, 0, set()
    for epoch in range(20):
        batch = SessionLoader(data, sessions, config).batch(epoch, 0)
        windows = inputs(data, batch)
        full = inputs(data, plain.batch(epoch, 0))
        assert batch.asks.tolist() == list(range(len(batch.history.gap)))
        for steps, before in zip(windows, full, strict=True):
            assert [event for event in before if event in steps] == steps
            assert steps[-1] == before[-1]
            left, whole = left + len(steps) - 1, whole + len(before) - 1
            lasts.add(len(steps))
        assert batch.examples.tolist() == [following[e] for steps in windows for e in steps]
        time = data.tables.events.time
        passed = [
            0.0 if n == 0 else (time[e] - time[steps[n - 1]]) / 1e6
            for steps in windows
            for n, e in enumerate(steps)
        ]
        assert batch.history.gap.tolist() == passed
    assert 0.55 < left / whole < 0.65
    assert len(lasts) > 3


def test_events_lose_their_features_and_their_gap_together(data: Dataset) -> None:
    loader = SessionLoader(data, sessions_of(data), replace(PLAIN, event_dropout=0.3))
    plain = SessionLoader(data, sessions_of(data), PLAIN)
    lost, count = 0, 0
    for epoch in range(8):
        batch, full = loader.batch(epoch, 0), plain.batch(epoch, 0)
        gone = batch.history.gap.isnan()
        lost, count = lost + int(gone.sum()), count + len(gone)
        features, own = batch.history.features, full.history.features
        absent = loader.data.encoder.encode("interactions", data.tables.items)
        assert torch.equal(features.single[~gone], own.single[~gone])
        assert torch.equal(features.dense[~gone], own.dense[~gone])
        assert torch.equal(batch.history.gap[~gone], full.history.gap[~gone])
        assert bool((features.single[gone] == absent.single[0]).all())
        assert bool((features.dense[gone] == absent.dense[0]).all())
        for step in torch.arange(len(gone)):
            block, row = (absent, torch.tensor(0)) if gone[step] else (own, step)
            at = features.multi[0].take(step[None]).values
            assert torch.equal(at, block.multi[0].take(row[None]).values)
        assert torch.equal(batch.history.items.values, full.history.items.values)
    assert 0.22 < lost / count < 0.38


def test_ids_drop_for_each_distinct_item_and_each_window(data: Dataset) -> None:
    loader = SessionLoader(data, sessions_of(data), replace(PLAIN, id_dropout=0.25))
    shares: dict[str, list[float]] = {"items": [], "users": []}
    for epoch in range(60):
        batch = loader.batch(epoch, 0)
        for name, block in (("items", batch.items), ("users", batch.users)):
            shares[name].append(float((block.single == int(UNKNOWN_HASH)).float().mean()))
    # Three items had no training row: their ids are unknown in any case.
    assert 0.25 < np.mean(shares["items"]) < 0.5
    assert 0.18 < np.mean(shares["users"]) < 0.32


def test_candidates_by_each_way_of_drawing(data: Dataset) -> None:
    sessions = sessions_of(data)
    trained = np.flatnonzero(data.train_counts > 0).tolist()

    def batch(**changes: Any) -> SessionBatch:
        nothing = {"uniform_negatives": 0, "frequent_negatives": 0, "batch_negatives": False}
        return SessionLoader(data, sessions, replace(PLAIN, **{**nothing, **changes})).batch(0, 0)

    def candidates(one: SessionBatch) -> list[int]:
        return one.item_rows[: one.num_candidates].tolist()

    whole = batch(whole_catalogue=True)
    assert candidates(whole) == list(range(data.num_items))
    assert whole.log_inclusion.tolist() == [0.0] * data.num_items
    assert len(trained) < data.num_items
    assert candidates(batch(whole_catalogue=True, trained_only=True)) == trained
    own = batch(batch_negatives=True)
    assert set(candidates(own)) == set(own.item_rows[own.positive].tolist())
    frequent = batch(frequent_negatives=500)
    assert candidates(frequent) == trained
    uniform = batch(uniform_negatives=500)
    assert candidates(uniform) == list(range(data.num_items))
    assert candidates(batch(uniform_negatives=500, trained_only=True)) == trained
    few = batch(uniform_negatives=1)
    assert few.num_candidates == 1
    check(data, few)  # targets lie behind the candidates
    assert int(few.positive.max()) >= 1


SAMPLINGS: dict[str, dict[str, Any]] = {
    "targets alone": {"uniform_negatives": 0, "frequent_negatives": 0},
    "uniform alone": {"batch_negatives": False, "frequent_negatives": 0},
    "frequent alone": {"batch_negatives": False, "uniform_negatives": 0},
    "all three": {},
    "nearly all windows": {"batch_size": 13, "uniform_negatives": 0},
    "trained only": {"trained_only": True},
    "steps out": {"step_dropout": 0.4, "uniform_negatives": 0, "frequent_negatives": 1},
    "last steps": {"positions": "last", "uniform_negatives": 0, "step_dropout": 0.4},
    "prefixes": {"positions": "random_prefix", "frequent_negatives": 0, "uniform_negatives": 1},
    "last windows": {"windows": "last", "uniform_negatives": 0, "frequent_negatives": 0},
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_log_inclusion_is_how_often_an_item_is_a_candidate(data: Dataset, name: str) -> None:
    config = replace(PLAIN, **{"batch_size": 3, **SAMPLINGS[name]})
    loader = SessionLoader(data, sessions_of(data), config)
    draws, full = 0, loader.num_windows // config.batch_size
    found = np.zeros(data.num_items)
    for epoch in range(-(-3_000 // full)):
        order = loader.order(epoch)
        for step in range(full):  # the last, smaller batch is another experiment
            batch = loader.batch(epoch, step, order)
            found[batch.item_rows[: batch.num_candidates].numpy()] += 1
            draws += 1
    expected = loader.log_inclusion.exp().numpy()
    seen = found > 0
    assert seen.sum() >= 12
    np.testing.assert_allclose(expected[seen], (found / draws)[seen], atol=0.035)
    assert (expected[~seen] <= 1 / int(data.train_counts.sum()) + 1e-6).all()
    assert torch.equal(
        batch.log_inclusion, loader.log_inclusion[batch.item_rows[: batch.num_candidates]]
    )


def test_a_log_without_a_next_event_is_refused(session_data: SessionData) -> None:
    data = session_data([0, 0, 1], [0, 1, 2], part=[0, 1, 0])
    with pytest.raises(DataError, match="none of 2 sessions has two training rows"):
        SessionLoader(data, sessions_of(data), PLAIN)


def test_settings_that_give_no_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="without candidates"):
        replace(PLAIN, uniform_negatives=0, frequent_negatives=0, batch_negatives=False)
    with pytest.raises(ValueError, match="max_length 0 must be at least 1"):
        replace(PLAIN, max_length=0)
    with pytest.raises(ValueError, match="batch_size 0 and"):
        replace(PLAIN, batch_size=0)


def test_a_session_without_training_events_moves_no_other(session_data: SessionData) -> None:
    data = session_data(
        [0, 0, 1, 1, 2],
        [0, 1, 2, 3, 0],
        time=[1, 2, 3, 4, 5],
        part=[1, 2, 0, 0, 0],
        features=CONTEXT,
        context=empty_context(5),
    )
    loader = SessionLoader(data, sessions_of(data), PLAIN)
    assert loader.num_windows == 1
    check(data, loader.batch(0, 0))


def test_a_target_that_nothing_else_brings_stands_behind_the_candidates(
    session_data: SessionData,
) -> None:
    data = session_data(
        [0, 0], [0, 1], time=[1, 2], num_items=9, features=CONTEXT, context=empty_context(2)
    )
    config = replace(PLAIN, uniform_negatives=1, frequent_negatives=0, batch_negatives=False)
    loader = SessionLoader(data, sessions_of(data), config)
    for epoch in range(20):
        check(data, loader.batch(epoch, 0))
