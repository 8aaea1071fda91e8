"""Models that retrieve, with windows of the user's rows in another table, up to a served list."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import TEST
from recsys.features.requests.origin import RequestOrigin
from recsys.serving.answering.lists import request_columns
from recsys.serving.answering.registry import answering_of
from recsys.training.families.load import load_config, parse_config
from recsys.training.families.loading import load_data
from recsys.training.jobs.train import train

USERS, ITEMS, ROWS, START, DAY = 60, 20, 900, 1_700_000_000, 86_400
LAST = {
    "name": "last_side", "kind": "window", "of": "orders", "by": "user", "take": "last",
    "value": "side",
}  # fmt: skip
RECENT = {"name": "orders_9d", "kind": "window", "of": "orders", "by": "user", "window": "9d"}


def write(folder: Path) -> dict[str, str]:
    """Write a log in which the side of the user's latest order decides between two halves."""
    rng = np.random.default_rng(3)
    orders = {
        "customer": rng.integers(0, USERS, 600),
        "at": START + rng.integers(0, 100 * DAY, 600),
        "side": rng.choice([-1.0, 1.0], 600),
    }
    user = rng.integers(0, USERS, ROWS)
    time = START + np.sort(rng.choice(np.arange(20, 100) * DAY, ROWS) + np.arange(ROWS))
    item = np.empty(ROWS, np.int64)
    for row in range(ROWS):
        mine = np.flatnonzero((orders["customer"] == user[row]) & (orders["at"] < time[row]))
        side = orders["side"][mine[orders["at"][mine].argmax()]] if len(mine) else 1.0
        item[row] = rng.integers(0, ITEMS // 2) + (side > 0) * (ITEMS // 2)
    paths = {}
    log = {"user": user, "item": item, "time": time}
    for name, rows in {"orders": orders, "interactions": log}.items():
        paths[name] = str(folder / f"{name}.parquet")
        pq.write_table(pa.table(rows), paths[name])
    return paths


def keys_of(folder: Path, paths: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {
        "data": {"interactions": paths["interactions"], "others": {"orders": paths["orders"]}},
        "schema": {
            "interactions": {
                "user": "user",
                "item": "item",
                "time": {"column": "time", "unit": "s"},
            },
            "relations": {
                "orders": {"keys": {"customer": "users"}, "time": {"column": "at", "unit": "s"}}
            },
            "features": [{"name": "item", "table": "items", "kind": "categorical"}, LAST, RECENT],
        },
        "model": {"kind": "two_tower", "dim": 16, "history_length": 1},
        "embedding": {"num_rows": 256, "dim": 8, "backend": "torch"},
        "training": {"epochs": 8, "batch_size": 64, "metric": "ndcg_at_10"},
        "evaluation": {"bootstrap_samples": 5, "baselines": [], "filter_seen": False, "ks": [10]},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
        **changes,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, str]]:
    """Return the configuration, the result of its training and the paths of the tables."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("towers")
    paths = write(folder)
    (folder / "recsys.yaml").write_text(yaml.safe_dump(keys_of(folder, paths)))
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return folder / "recsys.yaml", result, paths


def test_a_tower_learns_what_only_the_join_sees(
    model: tuple[Path, Any, dict[str, str]],
) -> None:
    metrics = recsys.load(model[1].bundle).metrics
    assert metrics["test"]["recall_at_10"] > 0.85  # half of the catalogue is right, by chance 0.5


def last_sides(paths: dict[str, str], users: Any) -> list[float | None]:
    """Return the side of each user's latest order, written another way."""
    orders = pq.read_table(paths["orders"]).sort_by("at").to_pylist()
    latest = {one["customer"]: one["side"] for one in orders}
    return [latest.get(user) for user in users]


def test_lists_of_a_log_are_those_of_requests_that_bring_the_values(
    model: tuple[Path, Any, dict[str, str]], tmp_path: Path
) -> None:
    _, result, paths = model
    command = ["score", str(result.bundle), "--interactions", paths["interactions"], "--k", "10"]
    command += ["--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code
    assert "reads last_side, orders_9d of it, and 'orders' is not given" in done.output
    done = CliRunner().invoke(main, [*command, "--other", f"orders={paths['orders']}"])
    assert done.exit_code == 0, done.output
    found = pq.read_table(tmp_path / "out").sort_by("user")
    log, orders = (pq.read_table(paths[name]) for name in ("interactions", "orders"))
    users = found.column("user").to_pylist()
    now = max(max(log.column("time").to_pylist()), max(orders.column("at").to_pylist()))
    recent = [
        sum(one["customer"] == user and one["at"] > now - 9 * DAY for one in orders.to_pylist())
        for user in users
    ]
    rows = sorted(log.to_pylist(), key=lambda row: row["time"])
    histories = [[row["item"] for row in rows if row["user"] == user] for user in users]
    requests = pa.table(
        {
            "user": users,
            "history": histories,
            "last_side": pa.array(last_sides(paths, users), pa.float64()),
            "orders_9d": pa.array(recent, pa.float64()),
        }
    )
    again = recsys.load(result.bundle).recommend(requests=requests, k=10, filter_seen=False)
    lists = [group["item"].tolist() for _, group in again.groupby("user", sort=True)]
    assert lists == found.column("items").to_pylist()
    # In Python the tables of the training are those that are read.
    whole = recsys.load(result.bundle).recommend(k=10, filter_seen=False)
    assert [one["item"].tolist() for _, one in whole.groupby("user", sort=True)] == lists


def test_queries_do_not_see_what_comes_after_them(
    model: tuple[Path, Any, dict[str, str]], tmp_path: Path
) -> None:
    config, _, paths = model
    data = load_data(load_config(config))
    queries = build_queries(data, TEST, history_length=1, filter_seen=False, limit=99, seed=0)
    events = data.tables.events
    first = [
        int(events.time[(events.user_row == u) & (data.part == TEST)].min()) for u in queries.users
    ]
    orders = pq.read_table(paths["orders"])
    cut = min(first)
    earlier = orders.filter(pa.compute.less(orders.column("at"), cut // 1_000_000))
    pq.write_table(earlier, tmp_path / "orders.parquet")
    raw = keys_of(tmp_path, {**paths, "orders": str(tmp_path / "orders.parquet")})
    less = load_data(parse_config(raw, source="less"))
    rows = np.flatnonzero(events.time <= cut)
    assert rows.size
    assert data.context.dense[rows].equal(less.context.dense[rows])
    assert not data.context.dense.equal(less.context.dense)


@pytest.mark.parametrize(
    ("feature", "changes", "message"),
    [
        ({"by": "pair"}, {}, "of kind two_tower has one vector an item.*set by: user, or rank"),
        ({}, {"model": {"kind": "ease"}}, "for models that read features, and model.kind is ease"),
        ({}, {"training": {"history_gap_minutes": 5}}, "what training.history_gap_minutes hides"),
    ],
)
def test_what_a_model_cannot_read_is_refused(
    feature: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    raw = keys_of(Path(), {"interactions": "i", "orders": "o"}, **changes)
    raw["schema"]["features"][-1] = {**RECENT, **feature}
    raw["schema"]["relations"]["orders"]["keys"] = {"customer": "users", "article": "items"}
    if "model" in changes:
        for name in ("embedding", "training"):
            del raw[name]
    with pytest.raises(ConfigError, match=message):
        parse_config(raw, source="recsys.yaml")


def test_the_steps_of_a_session_have_the_windows_before_them(
    model: tuple[Path, Any, dict[str, str]], tmp_path: Path
) -> None:
    """The lists of a log are those of requests with the value of each step, found by a scan."""
    paths = model[2]
    sessions = {"kind": "session", "dim": 8, "history_length": 4}
    few = {"epochs": 1, "batch_size": 16, "metric": "ndcg_at_10"}
    raw = keys_of(tmp_path, paths, model=sessions, training=few)
    raw["sessions"] = {"inactivity_minutes": 60 * 24 * 30}
    raw["schema"]["features"].pop()
    result = train(parse_config(raw, source="sessions"))
    assert result is not None
    trained = recsys.load(result.bundle)
    whole = trained.recommend(k=10, filter_seen=False)
    log = sorted(pq.read_table(paths["interactions"]).to_pylist(), key=lambda row: row["time"])
    orders = sorted(pq.read_table(paths["orders"]).to_pylist(), key=lambda row: row["at"])
    asked = []
    for user in whole["user"].unique():
        rows = [row for row in log if row["user"] == user]
        earlier = [
            [one["side"] for one in orders if one["customer"] == user and one["at"] < row["time"]]
            for row in rows
        ]
        asked.append(
            {
                "user": user,
                "history": [row["item"] for row in rows],
                "history_times": [row["time"] for row in rows],
                "history_last_side": [sides[-1] if sides else None for sides in earlier],
            }
        )
    requests = pa.Table.from_pylist(asked)
    again = trained.recommend(requests=requests, k=10, filter_seen=False)
    assert again[["user", "item"]].equals(whole[["user", "item"]])
    np.testing.assert_allclose(again["score"], whole["score"], rtol=0, atol=1e-6)
    flat = [[-side for side in one["history_last_side"] if side] for one in asked]
    other = requests.drop_columns(["history_last_side"])
    assert any(flat)
    assert not np.allclose(
        trained.recommend(requests=other, k=10, filter_seen=False)["score"], whole["score"]
    )


def test_an_exported_query_tower_reads_them(
    model: tuple[Path, Any, dict[str, str]], tmp_path: Path
) -> None:
    exported = recsys.load(model[1].bundle)
    done = CliRunner().invoke(
        main, ["export", str(exported.path), "--to", "onnx", "--out", str(tmp_path / "onnx")]
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "onnx" / "README.md").read_text()
    assert "last_side" in page
    columns = request_columns(Bundle.open(exported.path))
    assert columns.field("orders_9d").type == pa.float64()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_served_request_brings_its_value(
    side: float, model: tuple[Path, Any, dict[str, str]]
) -> None:
    path = recsys.load(model[1].bundle).path
    server = answering_of(Bundle.open(path)).server(path)
    request = pa.table({"user": [1], "history": [[3]], "last_side": [side]})
    (answer,) = server.answer(request, {"k": 5}, RequestOrigin("request")).to_pylist()
    assert [item >= ITEMS // 2 for item in answer["items"]] == [side > 0] * 5
