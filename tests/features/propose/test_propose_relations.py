"""What `init` proposes of further tables with many rows a key, which `check` accepts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.features.propose.tables import Inference, infer
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight

START, DAY, ROWS = 1_700_000_000, 86_400, 900


def proposal(folder: Path, *, label: bool) -> Inference:
    rng = np.random.default_rng(0)
    log = {
        "user_id": rng.integers(0, 40, ROWS),
        "item_id": rng.integers(0, 30, ROWS),
        "timestamp": START + rng.integers(0, 90 * DAY, ROWS),
    }
    log |= {"clicked": rng.integers(0, 2, ROWS)} if label else {}
    visits = {
        "user_id": pa.array([None, *rng.integers(0, 50, 499)]),
        "item_id": rng.integers(0, 30, 500),
        "visited_at": START + rng.integers(0, 90 * DAY, 500),
        "seconds": rng.integers(1, 99, 500),
    }
    for name, rows in {"log": log, "visits": visits}.items():
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    found = infer([folder / "log.parquet", folder / "visits.parquet"], relative_to=folder)
    (folder / "recsys.yaml").write_text(found.yaml)
    return found


def test_counts_and_times_since_are_proposed_and_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = proposal(tmp_path, label=True)
    raw = yaml.safe_load(found.yaml)
    assert raw["data"]["others"] == {"visits": str(tmp_path / "visits.parquet")}
    assert raw["schema"]["relations"]["visits"] == {
        "keys": {"user_id": "users", "item_id": "items"},
        "time": {"column": "visited_at", "unit": "s"},
    }
    windows = [one for one in raw["schema"]["features"] if one["kind"] == "window"]
    assert [one["name"] for one in windows] == [
        f"visits_{by}_{what}" for by in ("user", "item") for what in ("7d", "30d", "since")
    ]
    said = [one for one in found.unsure if "visits.parquet" in one]
    assert any("has many rows for each of user_id and item_id: the features" in one for one in said)
    assert not any("is not used" in one for one in said)
    monkeypatch.chdir(tmp_path)
    report = str(preflight(load_config(tmp_path / "recsys.yaml")))
    assert "note: relation 'visits': 499 rows" in report
    assert "policies" not in report.split("note:")[1]


def test_a_log_without_a_label_says_why_such_a_table_is_not_used(tmp_path: Path) -> None:
    found = proposal(tmp_path, label=False)
    assert "relations" not in yaml.safe_load(found.yaml)["schema"]
    said = [one for one in found.unsure if "visits.parquet is not used" in one]
    assert len(said) == 1
    assert (
        "a two-tower or a model of sessions may read windows by user, and the ranker of" in said[0]
    )


def test_the_encoding_and_the_decimals_of_such_a_table_are_declared(tmp_path: Path) -> None:
    proposal(tmp_path, label=True)
    lines = ["user_id;ordered_at;place;amount"]
    lines += [f"{k % 40};2023-12-{1 + k % 28:02d} 10:00:00;Köln;{k},5" for k in range(300)]
    (tmp_path / "orders.csv").write_text("\n".join(lines) + "\n", encoding="cp1252")
    found = infer([tmp_path / "log.parquet", tmp_path / "orders.csv"], relative_to=tmp_path)
    assert yaml.safe_load(found.yaml)["data"]["others"] == {
        "orders": {"path": str(tmp_path / "orders.csv"), "encoding": "cp1252"}
    }
    assert yaml.safe_load(found.yaml)["schema"]["relations"]["orders"]["decimal"] == ","
    (tmp_path / "recsys.yaml").write_text(found.yaml)
    assert "note: relation 'orders'" in str(preflight(load_config(tmp_path / "recsys.yaml")))


def stripped(folder: Path, *, items: bool) -> Inference:
    """Write a log whose items have zeros on the left, orders without them, and items so or so."""
    rng = np.random.default_rng(1)
    at = [f"2024-01-{1 + k % 28:02d} 10:{k % 60:02d}:00" for k in range(ROWS)]
    item, user = rng.integers(1, 30, ROWS), rng.integers(0, 40, ROWS)
    log = [f"{u},{i:05d},{t},{int(i > 20)}" for u, i, t in zip(user, item, at, strict=True)]
    orders = [f"{u},{i},{t}" for u, i, t in zip(user, item, at, strict=True)]
    catalogue = [f"{i},{i}.5" if items else f"{i:05d},{i}.5" for i in range(1, 30)]
    for name, head, lines in (
        ("log", "user_id,item_id,at,clicked", log),
        ("orders", "user_id,item_id,at", orders[:300]),
        ("items", "item_id,price", catalogue),
    ):
        (folder / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
    names = ("log", "orders", "items")
    found = infer([folder / f"{name}.csv" for name in names], relative_to=folder)
    (folder / "recsys.yaml").write_text(found.yaml)
    return found


def test_keys_join_as_the_schema_writes_the_ids(tmp_path: Path) -> None:
    raw = yaml.safe_load(stripped(tmp_path, items=True).yaml)
    assert raw["schema"]["ids"] == {"items": {"pad": 5}}
    keys = raw["schema"]["relations"]["orders"]["keys"]
    assert keys == {"user_id": "users", "item_id": "items"}
    report = str(preflight(load_config(tmp_path / "recsys.yaml")))
    assert "note: relation 'orders': 300 rows, 100.0% of a known user, 100.0% of a known item" in (
        report
    )


def test_a_key_that_does_not_join_is_said(tmp_path: Path) -> None:
    found = stripped(tmp_path, items=False)
    keys = yaml.safe_load(found.yaml)["schema"]["relations"]["orders"]["keys"]
    assert keys == {"user_id": "users"}
    assert "'item_id' has none of the ids of 'item_id'" in "\n".join(found.unsure)
