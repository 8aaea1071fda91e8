"""Rates of labels: what a training row is told leaves out its own label, and all that is later."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, continued, prepare
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION, SplitConfig
from recsys.features.encoding import label_sums
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import UNKNOWN_HASH
from recsys.features.encoding.label_features import LabelNumbers
from recsys.features.encoding.label_sums import LabelSums, Running, Seen, earlier, folds_of
from recsys.features.requests.rows import RowEncoder, as_rows
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources

ROWS, START = 300, 1_700_000_000
FEATURES: list[dict[str, Any]] = [
    {"name": "user", "table": "users", "kind": "categorical"},
    {"name": "item", "table": "items", "kind": "categorical"},
    {"name": "place", "table": "interactions", "kind": "categorical"},
    {"name": "pair", "kind": "rate", "of": ["user", "item"], "smoothing": 2},
    {"name": "there", "kind": "rate", "of": ["item", "place"]},
]
FOLDS = SplitConfig(kind="column", column="part")
BY_TIME = SplitConfig(validation=0.2, test=0.2)
CASES = [(FOLDS, False), (BY_TIME, True)]
names = ["folds", "earlier"]


def columns() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {
        "user": rng.integers(0, 9, ROWS),
        "item": rng.integers(0, 7, ROWS),
        "place": rng.choice(["home", "work", None], ROWS),
        "at": START + rng.integers(0, 90, ROWS),
        "weight": rng.choice([0.5, 1.0, 3.0], ROWS),
        "click": rng.integers(0, 2, ROWS),
        "part": rng.choice(["train", "train", "train", "valid", "test"], ROWS),
    }


def prepared(folder: Path, split: SplitConfig, *, has_time: bool) -> Dataset:
    pq.write_table(pa.table(columns()), folder / "log.parquet")
    return prepare(
        schema_of(has_time=has_time),
        Sources(interactions=str(folder / "log.parquet")),
        Policies.model_validate({"duplicate_events": "keep"}),
        split,
    )


def schema_of(*, has_time: bool, features: list[dict[str, Any]] = FEATURES) -> Schema:
    roles: dict[str, Any] = {"user": "user", "item": "item", "label": {"column": "click"}}
    roles["weight"] = "weight"
    if has_time:
        roles["time"] = {"column": "at", "unit": "s"}
    return Schema.model_validate_json(json.dumps({"interactions": roles, "features": features}))


@pytest.fixture(params=CASES, ids=names)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    split, has_time = request.param
    return prepared(tmp_path, split, has_time=has_time)


Numbers = Callable[[Dataset], Tensor]


def as_trained(data: Dataset) -> Tensor:
    return data.training_labels().numbers()


def as_everybody_else(data: Dataset) -> Tensor:
    """Return what is wrong for training rows: the sums that hold their own labels."""
    loader = RankingLoader(data, batch_size=1, seed=0)
    asked = LabelNumbers(
        data.schema.label_features,
        data.encoder.columns_layout(),
        data.training_labels().tables(),
    )
    return asked.of_all(loader.rows(loader.events).features)


def with_labels(data: Dataset, label: NDArray[np.float32]) -> Dataset:
    events = replace(data.tables.events, label=label)
    return replace(data, tables=replace(data.tables, events=events))


def own_labels_leak(numbers: Numbers, data: Dataset) -> bool:
    """Whether another label changes what its own row is told, or the rows that may not see it."""
    rows, events = data.events_of((TRAIN,)), data.tables.events
    before, label = numbers(data), events.label
    assert label is not None
    has_time = data.schema.interactions.time is not None
    blocks = events.time[rows] if has_time else folds_of(events.row[rows], 5)
    for place in range(0, len(rows), 7):
        flipped = label.copy()
        flipped[rows[place]] = 1 - flipped[rows[place]]
        after = numbers(with_labels(data, flipped))
        told = (after != before).any(dim=1).numpy()
        blind = blocks <= blocks[place] if has_time else blocks == blocks[place]
        if (told & blind).any():
            return True
    return False


def the_future_leaks(numbers: Numbers, data: Dataset) -> bool:
    """Whether rows are told something else when all that is at or after an instant is cut off."""
    rows, time = data.events_of((TRAIN,)), data.tables.events.time
    whole = numbers(data)
    for instant in np.unique(time[rows])[1::6]:
        kept = (time < instant) | (data.part != TRAIN)
        events = data.tables.events.take(np.flatnonzero(kept))
        cut = replace(
            data,
            tables=replace(data.tables, events=events),
            part=data.part[kept],
            context=data.context.take(torch.from_numpy(np.flatnonzero(kept))),
        )
        if not torch.equal(numbers(cut), whole[torch.from_numpy(time[rows] < instant)]):
            return True
    return False


def test_no_training_row_is_told_its_own_label(data: Dataset) -> None:
    assert not own_labels_leak(as_trained, data)
    assert own_labels_leak(as_everybody_else, data)


def test_nothing_later_changes_what_a_row_is_told(tmp_path: Path) -> None:
    data = prepared(tmp_path, BY_TIME, has_time=True)
    assert not the_future_leaks(as_trained, data)
    assert the_future_leaks(as_everybody_else, data)


def by_loop(data: Dataset, number: int) -> list[Tensor]:
    """Return what an event is told, counted row by row."""
    events, place = data.tables.events, data.tables.events.context.column("place").to_pylist()
    assert events.label is not None
    trained = data.part == TRAIN
    if trained[number] and data.schema.interactions.time is not None:
        visible = trained & (events.time < events.time[number])
    elif trained[number]:
        fold = folds_of(events.row, 5)
        visible = trained & (fold != fold[number])
    else:
        visible = trained
    where = np.array([one == place[number] for one in place])
    item = events.item_row == events.item_row[number]
    shared = [item & (events.user_row == events.user_row[number]), item & where]

    def total(rows: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
        assert events.label is not None
        positive = rows & (events.label > 0)
        return [np.array([float(events.weight[some].sum())]) for some in (positive, rows)]

    return [
        feature.numbers(Seen(*total(visible & same), *total(visible)))
        for feature, same in zip(data.schema.label_features, shared, strict=True)
    ]


def test_rows_of_every_part_are_told_what_a_loop_over_all_rows_finds(data: Dataset) -> None:
    loader = RankingLoader(data, batch_size=40, seed=0)
    assert loader.layout.dense == (
        *("pair", "pair.count", "pair.null", "there", "there.count", "there.null"),
    )
    for part in (TRAIN, VALIDATION, TEST):
        (batch,) = loader.ordered(part, ROWS)
        for dense, number in zip(batch.features.dense, batch.examples.tolist(), strict=True):
            assert torch.equal(dense, torch.cat(by_loop(data, number), dim=1)[0])
    for batch in loader.epoch(0):
        known = torch.from_numpy(np.searchsorted(loader.events, batch.examples.numpy()))
        assert torch.equal(batch.features.dense, as_trained(data)[known])


def test_another_item_is_looked_up_in_all_training_rows(data: Dataset) -> None:
    loader = RankingLoader(data, batch_size=40, seed=0)
    items = (data.tables.events.item_row[loader.events] + 1).astype(np.int64) % 7
    found = loader.rows(loader.events, items).features
    asked = LabelNumbers(
        data.schema.label_features, data.encoder.columns_layout(), data.encoder.label_tables
    )
    assert torch.equal(found.dense, asked.of_all(found))


def test_a_share_of_the_negatives_is_told_of_all_rows(data: Dataset) -> None:
    """What is left out of an epoch was there: rates are those of the log, as scored rows see it."""
    loader = RankingLoader(data, batch_size=400, seed=0, negative_rate=0.4)
    (batch,) = loader.epoch(0)
    assert len(batch) < len(loader.events)
    known = torch.from_numpy(np.searchsorted(loader.events, batch.examples.numpy()))
    assert torch.equal(batch.features.dense, as_trained(data)[known])


def test_a_dropped_id_has_no_training_row_in_its_rates(data: Dataset) -> None:
    loader = RankingLoader(data, batch_size=200, seed=0, id_dropout=0.5)
    batch = next(loader.epoch(0))
    plain = loader.rows(batch.examples.numpy()).features.dense
    single = [name for name, _ in loader.layout.single]
    unknown = batch.features.single == int(UNKNOWN_HASH)
    user, item = unknown[:, single.index("user")], unknown[:, single.index("item")]
    pair, there = batch.features.dense[:, :3], batch.features.dense[:, 3:]
    nobody = torch.tensor([0.0, 0.0, 1.0])
    assert 0 < int((user | item).sum()) < len(batch)
    assert (pair[user | item] == nobody).all()
    assert (there[item] == nobody).all()
    assert torch.equal(pair[~(user | item)], plain[~(user | item), :3])
    assert torch.equal(there[~item], plain[~item, 3:])


def test_the_encoder_keeps_the_sums_and_scores_with_all_of_them(
    data: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    data.encoder.save(folder)
    again = FeatureEncoder.read(lambda name: (folder / name).read_bytes())
    assert again.digest() == data.encoder.digest()
    loader = RankingLoader(data, batch_size=40, seed=0)
    (batch,) = loader.ordered(TEST, ROWS)
    rows = pa.table(columns()).take(data.tables.events.row[batch.examples.numpy()])
    scored = RowEncoder(again, Policies()).encode(rows, as_rows(rows))
    assert torch.equal(scored.dense, batch.features.dense)
    stranger = rows.slice(0, 1).set_column(0, "user", pa.array([10**6]))
    told = RowEncoder(again, Policies()).encode(stranger, as_rows(stranger)).dense[0]
    assert told[:3].tolist() == [0.0, 0.0, 1.0]


def test_a_data_set_in_the_cache_has_the_sums(tmp_path: Path) -> None:
    data = prepared(tmp_path, FOLDS, has_time=False)
    parts = (
        schema_of(has_time=False),
        Sources(interactions=str(tmp_path / "log.parquet")),
        Policies.model_validate({"duplicate_events": "keep"}),
        FOLDS,
    )
    cached(tmp_path / "cache", lambda: data, *parts)
    again = cached(tmp_path / "cache", lambda: pytest.fail("built again"), *parts)
    assert again.encoder.digest() == data.encoder.digest()
    assert torch.equal(as_trained(again), as_trained(data))


def test_a_warm_start_counts_the_rows_of_its_own_log(data: Dataset) -> None:
    later = continued(data, data.encoder)
    for name, table in data.encoder.label_tables.items():
        for part, array in vars(table).items():
            assert np.array_equal(array, getattr(later.encoder.label_tables[name], part))


def test_rows_that_come_in_pieces_sum_up_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    values, row = rng.integers(-9, 9, 500), np.arange(500)
    label = rng.integers(0, 2, 500).astype(np.float32)
    weight = rng.choice([0.5, 1, 2], 500).astype(np.float32)
    time = np.sort(rng.integers(0, 40, 500))
    whole = LabelSums("f", 4)
    whole.add(values, row, label, weight)
    expected = earlier(values, time, label, weight)
    monkeypatch.setattr(label_sums, "_PENDING", 8)
    pieces, running = LabelSums("f", 4), Running(whole.table().hashes)
    told: list[Seen] = []
    for start in range(0, 500, 9):
        here = slice(start, start + 9)
        pieces.add(values[here], row[here], label[here], weight[here])
        told.append(running.add(values[here], time[here], label[here], weight[here]))
    for part in ("hashes", "positives", "rows"):
        assert np.array_equal(getattr(pieces.table(), part), getattr(whole.table(), part))
    one, two = whole.outside().of(values, row), pieces.outside().of(values, row)
    for part in ("positives", "rows", "all_positives", "all_rows"):
        assert np.array_equal(getattr(one, part), getattr(two, part))
        joined = np.concatenate([getattr(seen, part) for seen in told])
        assert np.array_equal(joined, getattr(expected, part))
    with pytest.raises(ValueError, match="order of time"):
        running.add(values[:1], time[:1] - 1, label[:1], weight[:1])
    monkeypatch.setattr(label_sums, "MOST_VALUES", 10)
    with pytest.raises(ConfigError, match="feature 'f': the training rows hold more than 10"):
        whole.add(values, row, label, weight)
