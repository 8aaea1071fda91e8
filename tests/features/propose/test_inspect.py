"""`recsys check`: counts against hand-made tables, and leaks that are there to be found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.features.propose.inspect import Report, inspect
from recsys.features.schema import Schema
from recsys.features.tables.checked import read_tables
from recsys.features.tables.sources import Policies, Sources

START = 1_700_000_000


def report(
    folder: Path,
    log: dict[str, Any],
    parts: list[int],
    *,
    context: list[dict[str, Any]] | None = None,
    items: dict[str, Any] | None = None,
    label: str | None = None,
    title: str | None = None,
    outcomes: tuple[str, ...] = (),
) -> Report:
    """Write, read and inspect; parts are those of the events in their sorted order."""
    pq.write_table(pa.table(log), folder / "log.parquet")
    pq.write_table(pa.table(items or {"item": [1, 2, 3, 4]}), folder / "items.parquet")
    raw = {
        "interactions": {
            "user": "user",
            "item": "item",
            "time": {"column": "time", "unit": "s"},
            **({} if label is None else {"label": {"column": label}}),
            "outcomes": [{"name": name, "column": name} for name in outcomes],
        },
        "items": {"key": "item", **({} if title is None else {"title": title})},
        "features": [
            {"name": name, "table": "items", "kind": "categorical"}
            for name in (items or {"item": []})
        ]
        + (context or []),
    }
    schema = Schema.model_validate_json(json.dumps(raw))
    sources = Sources(interactions=str(folder / "log.parquet"), items=str(folder / "items.parquet"))
    tables = read_tables(schema, sources, Policies(unknown_items="drop"))
    return inspect(schema, tables, np.array(parts, np.int8), table_bytes=4_000_000)


def test_counts_by_hand(tmp_path: Path) -> None:
    log = {
        "user": [1, 1, 1, 2, 2, 3, 3],
        "item": [1, 2, 1, 1, 3, 3, 9],
        "time": [START + 10 * k for k in range(7)],
    }
    items = {"item": [1, 2, 3, 4], "brand": ["a", None, "a", None]}
    found = report(tmp_path, log, [0, 0, 2, 0, 1, 2], items=items)
    assert found.rows == {"interactions": 6, "items": 4, "users": 3}
    brand = next(one for one in found.columns if one.column == "brand")
    assert (brand.nulls, brand.distinct) == (2, 1)
    train, validation, test = found.parts
    assert (train.rows, train.users, train.items) == (3, 2, 2)
    assert (validation.rows, validation.cold_item_rows, validation.cold_user_rows) == (1, 1, 0)
    # User 3 took item 3: neither has a training row.
    assert (test.rows, test.cold_item_rows, test.cold_user_rows) == (2, 1, 1)
    assert train.first == "2023-11-14T22:13:20+00:00"
    assert (found.repeated_events, found.repeated_across_parts) == (1, 1)
    assert (found.items_without_events, found.users_without_events) == (1, 0)
    assert [drop.rows for drop in found.drops] == [1]
    text = "\n".join(found.lines())
    for words in ("6 interactions, 4 items, 3 users", "4.0 MB", "unknown_items: drop: 1 rows"):
        assert words in text
    head, *shown = (line.split() for line in found.lines() if line.startswith(("part ", "test ")))
    assert " ".join(head) == "part rows users items rows of cold items of cold users"
    assert shown == [
        ["test", "2", "2", "2", "1", "1"],
        ["part", "from", "to"],
        ["test", test.first, test.last],
    ]
    tables = [line for line in found.lines() if "  " in line]
    assert max(map(len, tables)) <= 80  # a terminal does not wrap them
    assert json.loads(json.dumps(found.to_json()))["rows"]["items"] == 4


def warnings(found: Report) -> str:
    return "\n".join(found.warnings)


def test_clean_data_has_no_warning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = 400
    log = {
        "user": np.sort(rng.integers(0, 20, size)),
        "item": rng.integers(1, 5, size),
        "time": START + np.arange(size),
        "device": rng.choice(["a", "b"], size),
        "hour": rng.integers(0, 24, size),
    }
    context = [
        {"name": name, "table": "interactions", "kind": "categorical"}
        for name in ("device", "hour")
    ]
    parts = np.zeros(size, int)
    last = np.flatnonzero(np.diff(log["user"], append=99))
    parts[last], parts[last - 1] = 2, 1
    found = report(tmp_path, log, parts.tolist(), context=context)
    # Four items and twenty rows a user: held-out pairs come again, and that is said.
    assert ["repeat a pair" in one for one in found.warnings] == [True]
    # Rows with a label are all evaluated: none are left out as seen.
    log["clicked"] = rng.integers(0, 2, size)
    found = report(tmp_path, log, parts.tolist(), context=context, label="clicked")
    assert not found.warnings


def test_leaks_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = 400
    item = rng.integers(1, 5, size)
    log = {
        "user": np.sort(rng.integers(0, 100, size)),
        "item": item,
        "time": START + rng.permutation(size),
        "rating": rng.integers(1, 6, size),
        "shelf": [f"s{one}" for one in item],
        "receipt": [f"r{k}" for k in range(size)],
    }
    context = [
        {"name": name, "table": "interactions", "kind": "categorical"}
        for name in ("rating", "shelf", "receipt")
    ]
    parts = rng.integers(0, 3, size)
    parts[parts == 1] = 2
    text = warnings(report(tmp_path, log, parts.tolist(), context=context))
    assert "'rating' looks like a rating" in text
    assert "'shelf' determines the item almost alone" in text
    assert "'receipt' is nearly unique for each user and item" in text
    assert "held-out rows are earlier than the last training row of their user" in text
    assert "no validation rows" in text


def test_labels_and_further_outcomes_are_counted_where_they_are_known(tmp_path: Path) -> None:
    log = {
        "user": [1, 1, 1, 2, 2, 2, 3, 3],
        "item": [1, 2, 3, 1, 2, 3, 1, 2],
        "time": [START + 10 * k for k in range(8)],
        "clicked": [1, 0, 1, 0, 1, 0, 1, 1],
        "bought": [1, None, 0, None, 0, None, None, 0],
    }
    parts = [0, 0, 0, 0, 1, 1, 2, 2]
    found = report(tmp_path, log, parts, label="clicked", outcomes=("bought",))
    counted = [(one.outcome, one.part, one.rows, one.positives) for one in found.labels]
    assert counted == [
        ("label", "train", 4, 2),
        ("label", "validation", 2, 1),
        ("label", "test", 2, 2),
        ("bought", "train", 2, 1),
        ("bought", "validation", 1, 0),
        ("bought", "test", 1, 0),
    ]
    lines = [" ".join(line.split()) for line in found.lines()]
    assert "outcome part rows label 1 share" in lines
    assert "bought train 2 1 50.00%" in lines
    warned = "\n".join(found.warnings)
    assert "all test rows have the label 1: nothing to distinguish there" in warned
    assert "all validation rows have the outcome 'bought' 0: nothing" in warned
    alone = report(tmp_path, log, parts, label="clicked")
    assert "part rows label 1 share" in [" ".join(line.split()) for line in alone.lines()]
    assert report(tmp_path, log, parts).labels == ()
