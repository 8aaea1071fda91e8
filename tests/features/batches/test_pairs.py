"""Batches: complete, repeatable, without a leak, each distinct item once."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batch import PairBatch
from recsys.features.batches.pairs import LoaderConfig, PairLoader, prefetch
from recsys.features.batches.sampling import log_inclusion
from recsys.features.dataset.dataset import Dataset, fit_encoder
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.hashing import UNKNOWN_HASH
from recsys.features.schema import Schema

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
    tensors += [batch.items.single, batch.query.single, batch.log_inclusion, batch.asks]
    tensors += [batch.not_negative.values, batch.not_negative.offsets]
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
        assert batch.not_negative.take(torch.tensor([query])).values.tolist() == [
            batch.positive[query]
        ]
        mine = (events.user_row == user) & (events.time < time) & (part == TRAIN)
        expected = events.item_row[mine][-6:].tolist()
        start, stop = batch.history.offsets[query], batch.history.offsets[query + 1]
        assert [rows[slot] for slot in batch.history.values[start:stop].tolist()] == expected
        user_columns = loader.data.users.single.shape[1]
        assert torch.equal(
            batch.query.single[query, :user_columns], loader.data.users.single[int(user)]
        )
    assert torch.equal(batch.items.single, loader.data.items.single[batch.item_rows])
    taken = set(events.item_row[batch.examples.numpy()].tolist())
    assert taken <= set(rows[: batch.num_candidates])
    assert len(taken) <= batch.num_candidates <= len(taken) + PLAIN.uniform_negatives
    of_catalogue = log_inclusion(
        loader.data.train_counts, batch_size=256, uniform_negatives=PLAIN.uniform_negatives
    )
    assert batch.log_inclusion.tolist() == of_catalogue[rows[: batch.num_candidates]].tolist()


def test_ids_drop_at_their_rate_and_nothing_else_does(dataset: Dataset) -> None:
    batch = PairLoader(dataset, replace(PLAIN, id_dropout=0.25)).batch(0, 0)
    plain = PairLoader(dataset, PLAIN).batch(0, 0)
    column = dataset.encoder.id_columns("users")[0]
    dropped = batch.query.single[:, column] == int(UNKNOWN_HASH)
    assert 0.15 < float(dropped.float().mean()) < 0.35
    assert torch.equal(batch.query.single[~dropped], plain.query.single[~dropped])
    item = dataset.encoder.id_columns("items")[0]
    unknown = batch.items.single[:, item] == int(UNKNOWN_HASH)
    assert 0.1 < float(unknown.float().mean()) < 0.4
    batch.query.single[:, column] = plain.query.single[:, column]
    assert torch.equal(batch.query.single, plain.query.single)


def test_each_row_brings_its_own_weight(dataset: Dataset) -> None:
    weight = np.arange(len(dataset.tables.events), dtype=np.float32)
    events = replace(dataset.tables.events, weight=weight)
    data = replace(dataset, tables=replace(dataset.tables, events=events))
    batch = PairLoader(data, PLAIN).batch(0, 0)
    assert batch.weight.tolist() == batch.examples.tolist()


def test_a_request_without_context_trains_as_batch_scoring_encodes_it(dataset: Dataset) -> None:
    """Every kind of context goes, not only the single-valued: numbers, lists and clocks too."""
    raw = dataset.schema.model_dump(mode="json")
    context = [
        {"name": "place", "table": "interactions", "kind": "categorical"},
        {"name": "basket", "table": "interactions", "kind": "multi_categorical"},
        {"name": "hour", "table": "interactions", "kind": "numeric"},
        {"name": "clock", "table": "interactions", "kind": "timestamp", "unit": "s"},
    ]
    raw["features"] = [f for f in raw["features"] if f["table"] != "interactions"] + context
    schema = Schema.model_validate_json(json.dumps(raw))
    count = len(dataset.tables.events)
    rng = np.random.default_rng(0)
    columns = {
        "place": pa.array(rng.integers(1, 9, count)),
        "basket": pa.array([[k % 5, k % 3] for k in range(count)]),
        "hour": pa.array(rng.normal(size=count)),
        "clock": pa.array(rng.integers(1, 10**9, count)),
    }
    events = replace(dataset.tables.events, context=pa.table(columns))
    tables = replace(dataset.tables, events=events)
    encoder = fit_encoder(schema, tables, dataset.part)
    data = replace(
        dataset,
        schema=schema,
        tables=tables,
        encoder=encoder,
        context=encoder.encode("interactions", events.context),
    )
    batch = PairLoader(data, replace(PLAIN, context_dropout=0.4)).batch(0, 0)
    users = data.users.single.shape[1], len(data.users.multi), data.users.dense.shape[1]
    single, dense = batch.query.single[:, users[0] :], batch.query.dense[:, users[2] :]
    (basket,) = batch.query.multi[users[1] :]
    absent = encoder.encode("interactions", pa.table({"user_id": ["u"]}))
    gone = (single == absent.single).all(1)
    assert 0.25 < float(gone.float().mean()) < 0.55
    whole = data.context.take(batch.examples)
    for query, without in enumerate(gone.tolist()):
        block, at = (absent, 0) if without else (whole, query)
        assert torch.equal(single[query], block.single[at])
        assert torch.equal(dense[query], block.dense[at])
        row, same = torch.tensor([query]), torch.tensor([at])
        assert torch.equal(basket.take(row).values, block.multi[0].take(same).values)


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


@settings(max_examples=20)
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
