"""A small shop that reads without a fault, to be spoilt one column at a time."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.features.dataset.dataset import Dataset, encoded, fit_encoder
from recsys.features.dataset.split import TRAIN
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

DAY = 86_400
START = 1_700_000_000
NOW = datetime(2024, 6, 1, tzinfo=UTC)
LOG = {
    "user": [1, 1, 2, 2, 3],
    "item": [10, 11, 10, 12, 11],
    "time": [START + k * DAY for k in range(5)],
    "weight": [1.0, 2.0, 1.0, 1.0, 0.5],
    "place": ["shop", "web", "web", "shop", None],
}
ITEMS = {
    "item": [10, 11, 12],
    "name": ["Red shoe", "Blue shoe", "Hat"],
    "brand": ["a", "b", None],
    "tags": [["x", "y"], [], None],
    "price": [1.5, None, 3.0],
    "look": [[0.1, 0.2], [0.3, 0.4], None],
}
USERS = {"user": [1, 2, 3], "age": [30, 40, None]}
FEATURES = [
    {"name": "item", "table": "items", "kind": "categorical"},
    {"name": "brand", "table": "items", "kind": "categorical"},
    {"name": "tags", "table": "items", "kind": "multi_categorical", "separator": "|"},
    {"name": "name", "table": "items", "kind": "text"},
    {"name": "price", "table": "items", "kind": "numeric"},
    {"name": "look", "table": "items", "kind": "vector", "dim": 2},
    {"name": "age", "table": "users", "kind": "numeric"},
    {"name": "place", "table": "interactions", "kind": "categorical"},
]


def _read(
    folder: Path,
    *,
    log: dict[str, Any] | None = None,
    items: dict[str, Any] | None = None,
    users: dict[str, Any] | None = None,
    roles: dict[str, Any] | None = None,
    policies: dict[str, Any] | None = None,
    paths: dict[str, str] | None = None,
    features: list[dict[str, Any]] | None = None,
    split: str | None = None,
) -> Tables:
    """Read the small shop with some columns replaced (None: left out)."""
    written = {"interactions": (LOG, log), "items": (ITEMS, items), "users": (USERS, users)}
    for name, (columns, changes) in written.items():
        merged = {**columns, **(changes or {})}
        table = pa.table({key: value for key, value in merged.items() if value is not None})
        pq.write_table(table, folder / f"{name}.parquet")
    given = {name: str(folder / f"{name}.parquet") for name in written}
    interactions = {
        "user": "user",
        "item": "item",
        "time": {"column": "time", "unit": "s"},
        "weight": "weight",
        **(roles or {}),
    }
    schema = {
        "interactions": {key: value for key, value in interactions.items() if value is not None},
        "items": {"key": "item", "title": "name"},
        "users": {"key": "user"},
        "features": [*FEATURES, *(features or [])],
    }
    return read_tables(
        Schema.model_validate_json(json.dumps(schema)),
        Sources.model_validate({**given, **(paths or {})}),
        Policies.model_validate(policies or {}),
        split_column=split,
        now=NOW,
    )


@pytest.fixture
def read_shop(tmp_path: Path) -> Callable[..., Tables]:
    """Read the small shop from `tmp_path`; keywords replace columns, roles, policies, paths."""
    return partial(_read, tmp_path)


def _session_data(
    user: Sequence[int],
    item: Sequence[int],
    *,
    time: Sequence[int] | None = None,
    session: Sequence[int] | None = None,
    part: Sequence[int] | None = None,
    num_items: int | None = None,
    features: Sequence[dict[str, Any]] = (),
    context: dict[str, Any] | None = None,
) -> Dataset:
    """Return E events as a data set; the feature `serial` of an event is its number in `user`.

    Users and items are their own rows; time in seconds; all rows are training rows without `part`.
    """
    order = np.lexsort(([0] * len(user) if time is None else time, user))
    raw: dict[str, Any] = {"user": "user", "item": "item"}
    raw |= {"time": {"column": "time", "unit": "s"}} if time is not None else {}
    raw |= {"session": "visit"} if session is not None else {}
    listed = [
        {"name": "item", "table": "items", "kind": "categorical"},
        {"name": "user", "table": "users", "kind": "categorical"},
        {"name": "serial", "table": "interactions", "kind": "categorical"},
        *features,
    ]
    schema = Schema.model_validate_json(json.dumps({"interactions": raw, "features": listed}))
    columns = {"serial": pa.array(order)}
    columns |= {name: pa.array(one).take(pa.array(order)) for name, one in (context or {}).items()}
    numbers = np.arange(len(order))
    events = Events(
        user_row=np.asarray(user, np.int32)[order],
        item_row=np.asarray(item, np.int32)[order],
        time=numbers if time is None else np.asarray(time, np.int64)[order] * 1_000_000,
        weight=(numbers % 7 + 1).astype(np.float32),
        row=numbers,
        split=None,
        context=pa.table(columns),
        session=None if session is None else np.asarray(session, np.int32)[order],
    )
    items = pa.table({"item": np.arange(num_items or max(item) + 1)})
    tables = Tables(items, pa.table({"user": np.arange(max(user) + 1)}), events, (), "")
    parts = np.asarray(part if part is not None else [TRAIN] * len(order), np.int8)[order]
    encoder = fit_encoder(schema, tables, parts)
    return encoded(encoder.schema, tables, parts, encoder)


@pytest.fixture(scope="session")
def session_data() -> Callable[..., Dataset]:
    """Return a data set of the events given: user, item, time, session, part (sequences)."""
    return _session_data
