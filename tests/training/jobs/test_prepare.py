"""`recsys prepare`: what it encodes is what training reads, for every family."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, UserError
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.encoded import Encoded
from recsys.training.families.load import parse_config
from recsys.training.jobs.prepare import prepare
from recsys.training.jobs.train import train
from tests.training.jobs.odd_experiments import KINDS, odd_experiments


def prepared(config: ExperimentConfig) -> tuple[Encoded, ...] | str:
    """Return what is prepared, or what it is refused with."""
    try:
        return prepare(config)
    except UserError as error:
        return str(error)


def test_training_encodes_nothing_that_was_prepared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On odd little logs of every family; what training refuses is refused before it."""
    trained = set()
    for odd in odd_experiments(tmp_path, 14, seed=17):
        cache = tmp_path / f"cache {odd.name}"
        config = parse_config(odd.keys | {"cache": str(cache)}, source=odd.name)
        found = prepared(config)
        if isinstance(found, str):
            with pytest.raises(UserError) as refused:
                train(config, report=False)
            assert str(refused.value) == found, odd.name
            continue
        entries = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
        assert set(entries) == {one.path for one in found}
        with caplog.at_level(logging.INFO, "recsys"):
            caplog.clear()
            train(config, report=False)
        assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == entries, odd.name
        said = "\n".join(caplog.messages)
        assert all(f"{path}: the encoded tables are read from there" in said for path in entries)
        trained.add(odd.kind)
    assert trained == set(KINDS)


@pytest.fixture
def clicks(tmp_path: Path) -> dict[str, Any]:
    """Keys of a ranker on a streamed log of 100 rows, 10 of which a condition leaves out."""
    rows = 100
    log = {
        "click": [row % 3 == 0 for row in range(rows)],
        "site": [f"s{row % 7}" for row in range(rows)],
        "bot": [int(row % 10 == 0) for row in range(rows)],
    }
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    return {
        "data": {"interactions": str(tmp_path / "log.parquet"), "stream": True},
        "schema": {
            "interactions": {
                "label": {"column": "click"},
                "where": [{"column": "bot", "at_most": 0}],
            },
            "features": [{"name": "site", "table": "interactions", "kind": "categorical"}],
        },
        "split": {"validation": 0.1, "test": 0.2},
        "model": {"kind": "logistic"},
        "training": {"epochs": 1, "batch_size": 16},
        "output": str(tmp_path / "runs"),
        "tracking": {"enabled": False},
    }


def test_a_streamed_log_goes_to_where_training_reads_it_from(
    clicks: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = parse_config(clicks, source="clicks")
    (first,) = prepare(config)
    assert first.path.parent == tmp_path / "runs" / "encoded"
    assert first.rows == {"training": 63, "validation": 9, "test": 18}
    assert not first.was_there
    assert first.num_bytes == sum(one.stat().st_size for one in first.path.rglob("*.*"))
    with caplog.at_level(logging.INFO, "recsys"):
        train(config, report=False)
    assert f"{first.path}: the encoded log is read from there" in caplog.messages
    (again,) = prepare(config)
    assert (again.path, again.was_there) == (first.path, True)


def test_a_damaged_entry_is_encoded_again(clicks: dict[str, Any]) -> None:
    config = parse_config(clicks, source="clicks")
    (first,) = prepare(config)
    label = first.path / "train" / "label.bin"
    label.write_bytes(b"x" + label.read_bytes()[1:])
    (again,) = prepare(config)
    assert not again.was_there
    (third,) = prepare(config)
    assert third.was_there


def test_a_change_of_the_data_is_encoded_anew(clicks: dict[str, Any]) -> None:
    (first,) = prepare(parse_config(clicks, source="clicks"))
    (other,) = prepare(parse_config(clicks | {"split": {"validation": 0.2}}, source="clicks"))
    assert other.path != first.path
    assert other.rows != first.rows


def test_tables_without_a_cache_are_refused_with_a_way_out(config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match="set it, or give --output FOLDER, and train with --set"):
        prepare(config.model_copy(update={"cache": None}))
