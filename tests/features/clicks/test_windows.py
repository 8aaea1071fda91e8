"""Windows of a streamed log: bit by bit those of the same log in memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.features.clicks import windows as of_clicks
from recsys.features.clicks.log import encode_click_log
from recsys.features.clicks.rows import ClickSource
from recsys.features.clicks.windows import LogWindows
from recsys.features.dataset.split import TRAIN, SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables import csv_files, parquet_files
from recsys.features.tables.checked import read_tables
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Policies, Sources

START, DAY, ROWS = 1_700_000_000, 86_400, 400
SPLIT = SplitConfig(kind="column", column="part")
TAKES: list[dict[str, Any]] = [
    {"take": "count"},
    {"take": "sum", "value": "amount"},
    {"take": "mean", "value": "amount", "where": [{"column": "amount", "at_least": 2}]},
    {"take": "last", "value": "amount"},
    {"take": "distinct", "value": "state"},
    {"take": "since"},
    {"take": "share", "where": [{"column": "state", "one_of": ["ok"]}]},
]
WINDOWS = [
    {"name": f"{of}_{by}_{number}", "kind": "window", "of": of, "by": by, **take, **span}
    for of in ("interactions", "orders")
    for by in ("user", "item", "pair")
    for number, take in enumerate(TAKES)
    for span in ({"window": "9d"} if number % 2 else {},)
]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read a few rows at a time, as large ones are a few at a time."""
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 64)
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 1500)


def columns(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    amount = rng.normal(2, 3, rows)
    return {
        "user": [f"u{one}" for one in rng.integers(0, 9, rows)],
        "item": rng.integers(0, 5, rows),
        "time": START + rng.integers(0, 40, rows) * DAY,
        "amount": pa.array(amount, mask=amount > 5),
        "state": rng.choice(["ok", "back", "lost"], rows),
    }


def schema_of(windows: list[dict[str, Any]] = WINDOWS, **roles: Any) -> Schema:
    time = {"column": "time", "unit": "s"}
    relation = {"keys": {"user": "users", "item": "items"}, "time": time}
    raw = {
        "interactions": {
            "user": "user", "item": "item", "time": time, "label": {"column": "click"}, **roles
        },
        "relations": {"orders": relation} if any(w["of"] == "orders" for w in windows) else {},
        "features": [{"name": "state", "table": "interactions", "kind": "categorical"}, *windows],
    }  # fmt: skip
    return Schema.model_validate_json(json.dumps(raw))


def write(folder: Path, form: str = "parquet") -> Sources:
    """Write log and relation; the rows of a part are in no order of time."""
    rng = np.random.default_rng(2)
    log = {**columns(ROWS, 0), "click": rng.integers(0, 2, ROWS)}
    parts = [ROWS // 2, ROWS // 4, ROWS // 4]
    log["part"] = np.repeat(["train", "valid", "test"], parts)
    of_parts = np.split(np.sort(log["time"]), np.cumsum(parts)[:-1])
    log["time"] = np.concatenate([rng.permutation(times) for times in of_parts])
    paths = {}
    for name, found in (("log", log), ("orders", columns(300, 1))):
        paths[name] = str(folder / f"{name}.{form}")
        if form == "csv":
            pyarrow.csv.write_csv(pa.table(found), paths[name])
        else:
            pq.write_table(pa.table(found), paths[name], row_group_size=70)
    return Sources(interactions=paths["log"], others={"orders": paths["orders"]})


def streamed(schema: Schema, sources: Sources, folder: Path) -> dict[str, Any]:
    """Return all windows of a streamed log in the order of its rows."""
    source = ClickSource(
        open_table(sources.interactions, "interactions"), schema, Policies(), SPLIT
    )
    source.complete = LogWindows.read(schema, sources, Policies(), source, folder).beside
    batches = list(source.batches(schema.features_of("interactions"), Ledger(source.files)))
    names = [one.name for one in schema.relation_features]
    return {name: pa.chunked_array([rows.columns[name] for rows in batches]) for name in names}


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("files", [1, 7])
def test_windows_are_those_of_the_log_in_memory(
    form: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_clicks, "_files_for", lambda _: files)
    sources, schema = write(tmp_path, form), schema_of()
    found = streamed(schema, sources, tmp_path)
    whole = read_tables(schema, sources, Policies(), split_column="part").events
    place = pa.array(np.argsort(whole.row))
    for name, values in found.items():
        expected = whole.context.column(name).take(place)
        assert values.null_count == expected.null_count
        bits = [np.asarray(one.fill_null(-1)).view(np.int64) for one in (values, expected)]
        assert np.array_equal(*bits), name
    assert len({str(values.to_pylist()) for values in found.values()}) > 0.9 * len(found)
    assert not list(tmp_path.glob("windows-*"))


def test_rows_are_encoded_with_them(tmp_path: Path) -> None:
    sources, schema = write(tmp_path), schema_of()
    log = encode_click_log(schema, sources, Policies(), SPLIT, tmp_path / "cache" / "log")
    rows = log.read(TRAIN, slice(0, None))
    whole = read_tables(schema, sources, Policies(), split_column="part").events
    context = whole.context.take(pa.array(np.argsort(whole.row)[: ROWS // 2]))
    assert log.encoder.encode("interactions", context).dense.equal(rows.features.dense)
    assert rows.features.dense.std(0).min() >= 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["log"]


def test_later_rows_change_nothing(tmp_path: Path) -> None:
    """As rows come in any order, the rows of an instant are cut off wherever they stand."""
    sources, schema = write(tmp_path), schema_of()
    (tmp_path / "cut").mkdir()
    cut, found, paths = START + 20 * DAY, streamed(schema, sources, tmp_path), {}
    table = pq.read_table(tmp_path / "log.parquet")
    kept = np.flatnonzero(np.asarray(table.column("time")) <= cut)
    for name in ("log", "orders"):
        rows = pq.read_table(tmp_path / f"{name}.parquet")
        paths[name] = str(tmp_path / "cut" / f"{name}.parquet")
        pq.write_table(rows.filter(np.asarray(rows.column("time")) <= cut), paths[name])
    less = Sources(interactions=paths["log"], others={"orders": paths["orders"]})
    for name, values in streamed(schema, less, tmp_path / "cut").items():
        assert values.to_pylist() == found[name].take(pa.array(kept)).to_pylist()


def test_ids_of_two_kinds_are_named(tmp_path: Path) -> None:
    sources = write(tmp_path)
    orders = pq.read_table(tmp_path / "orders.parquet")
    numbers = pa.array(range(len(orders)))
    pq.write_table(orders.set_column(0, "user", numbers), tmp_path / "orders.parquet")
    with pytest.raises(DataError, match="'user': holds int64 ids, and the rows that it is joined"):
        streamed(schema_of(), sources, tmp_path)


@pytest.mark.parametrize("by", ["user", "pair"])
def test_a_log_that_names_no_owner_is_refused(by: str, tmp_path: Path) -> None:
    window = {"name": "w", "kind": "window", "of": "interactions", "by": by}
    schema, sources = schema_of([window], user="", item=""), write(tmp_path)
    alone = sources.model_copy(update={"others": {}})
    with pytest.raises(ConfigError, match=f"'w' is by {by}, and the log names no user: give"):
        encode_click_log(schema, alone, Policies(), SPLIT, tmp_path / "log")
