"""Rates of a streamed log: those of the same log in memory, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.features.batches.rows import RankingLoader
from recsys.features.clicks.log import encode_click_log, load_click_log
from recsys.features.dataset.dataset import prepare
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION, SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables import parquet_files
from recsys.features.tables.sources import Policies, Sources

ROWS, START = 240, 1_700_000_000
PARTS = (TRAIN, VALIDATION, TEST)
BY_COLUMN = SplitConfig(kind="column", column="part")
BY_TIME = SplitConfig(validation=0.2, test=0.2)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read a few rows at a time: an instant goes on from one batch to the next."""
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 16)


def columns() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    return {
        "user": rng.integers(0, 9, ROWS),
        "item": rng.integers(0, 7, ROWS),
        "place": rng.choice(["home", "work", "rare", None], ROWS, p=[0.5, 0.3, 0.02, 0.18]),
        # Instants of several rows, one of them longer than a batch.
        "at": START + np.sort(np.where(np.arange(ROWS) < 60, 3, rng.integers(4, 40, ROWS))),
        "weight": rng.choice([0.5, 1.0, 3.0], ROWS),
        "click": rng.integers(0, 2, ROWS),
        "part": rng.choice(["train", "train", "valid", "test"], ROWS),
    }


def schema_of(*, streamed: bool, has_time: bool) -> Schema:
    roles: dict[str, Any] = {"user": "user", "item": "item", "label": {"column": "click"}}
    roles["weight"] = "weight"
    if has_time:
        roles["time"] = {"column": "at", "unit": "s"}
    sides = ["interactions"] * 3 if streamed else ["users", "items", "interactions"]
    features: list[dict[str, Any]] = [
        {"name": name, "table": side, "kind": "categorical"}
        for name, side in zip(["user", "item", "place"], sides, strict=True)
    ]
    features[2]["min_count"] = 10
    features += [
        {"name": "pair", "kind": "rate", "of": ["user", "item"]},
        {"name": "there", "kind": "rate", "of": ["place"], "rows": "folds", "smoothing": 3},
    ]
    return Schema.model_validate_json(json.dumps({"interactions": roles, "features": features}))


def in_memory(sources: Sources, split: SplitConfig, *, has_time: bool) -> dict[int, Tensor]:
    """Return what each row of the log is told, by its number."""
    policies = Policies.model_validate({"duplicate_events": "keep"})
    data = prepare(schema_of(streamed=False, has_time=has_time), sources, policies, split)
    loader = RankingLoader(data, batch_size=50, seed=0)
    batches = [batch for part in PARTS for batch in loader.ordered(part, ROWS)]
    return {
        int(data.tables.events.row[event]): dense
        for batch in batches
        for event, dense in zip(batch.examples.tolist(), batch.features.dense, strict=True)
    }


# By time a streamed log is cut between rows, one in memory between instants.
@pytest.mark.parametrize("has_time", [False, True])
def test_a_streamed_log_is_told_what_one_in_memory_is(tmp_path: Path, *, has_time: bool) -> None:
    given = columns()
    if has_time:  # parts of a streamed log follow each other in time
        given["part"] = np.repeat(["train", "valid", "test"], [160, 40, 40])
        given["at"] = np.sort(given["at"])
    pq.write_table(pa.table(given), tmp_path / "log.parquet")
    sources = Sources(interactions=str(tmp_path / "log.parquet"))
    expected = in_memory(sources, BY_COLUMN, has_time=has_time)
    schema = schema_of(streamed=True, has_time=has_time)
    log = encode_click_log(schema, sources, Policies(), BY_COLUMN, tmp_path / "encoded")
    seen = 0
    for part in PARTS:
        batch = log.read(part, slice(None))
        for row, dense in zip(batch.examples.tolist(), batch.features.dense, strict=True):
            assert torch.equal(dense, expected[row]), (part, row)
            seen += 1
    assert seen == len(expected) == ROWS
    assert log.layout.dense[:3] == ("pair", "pair.count", "pair.null")
    again = load_click_log(log.folder)
    assert again.encoder.digest() == log.encoder.digest()
    assert set(again.encoder.label_tables) == {"pair", "there"}


def test_parts_by_the_order_of_rows(tmp_path: Path) -> None:
    """Only rows that turn out to be for training are counted, in whatever batch the cut is."""
    pq.write_table(pa.table(columns()), tmp_path / "log.parquet")
    sources = Sources(interactions=str(tmp_path / "log.parquet"))
    schema = schema_of(streamed=True, has_time=False)
    log = encode_click_log(schema, sources, Policies(), BY_TIME, tmp_path / "encoded")
    weights = columns()["weight"][: log.counts[TRAIN]]
    for table in log.encoder.label_tables.values():
        assert table.rows.sum() == weights.sum()


def test_earlier_rows_need_the_order_of_time(tmp_path: Path) -> None:
    given = columns()
    given["part"] = np.repeat(["train", "valid", "test"], [160, 40, 40])
    given["at"][[70, 100]] = given["at"][[100, 70]]
    pq.write_table(pa.table(given), tmp_path / "log.parquet")
    sources = Sources(interactions=str(tmp_path / "log.parquet"))
    schema = schema_of(streamed=True, has_time=True)
    with pytest.raises(DataError, match=r"row 72.*'pair' is of earlier rows.*rows: folds") as error:
        encode_click_log(schema, sources, Policies(), BY_COLUMN, tmp_path / "encoded")
    assert error.value.rows
