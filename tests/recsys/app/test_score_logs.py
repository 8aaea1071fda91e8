"""A model of several logs is scored with them: the configuration says how they are read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import recsys
from recsys.app.log_given import log_given
from recsys.core.errors import ConfigError

START = 1_700_000_000


def test_lists_are_those_of_the_logs_as_one(tmp_path: Path) -> None:
    rows = [
        (k % 8, (k * k) % 11, START + k * 3600, ("view", "buy")[k % 3 // 2]) for k in range(200)
    ]
    views = [row for row in rows if row[3] == "view"]
    orders = [row for row in rows if row[3] == "buy"]
    user, item, time, kind = zip(*views, strict=True)
    pq.write_table(
        pa.table({"user": user, "item": item, "at": time, "event": kind}),
        tmp_path / "views.parquet",
    )
    user, item, time, _ = zip(*orders, strict=True)
    pq.write_table(pa.table({"user": user, "sku": item, "paid": time}), tmp_path / "orders.parquet")
    user, item, time, kind = zip(*rows, strict=True)
    columns = {"user": user, "item": item, "at": time, "event": kind}
    pq.write_table(pa.table(columns), tmp_path / "one.parquet")
    second = {
        "path": "orders.parquet",
        "columns": {"item": "sku", "at": "paid"},
        "set": {"event": "buy"},
    }
    raw = {
        "data": {"interactions": ["views.parquet", second]},
        "schema": {
            "interactions": {
                "user": "user",
                "item": "item",
                "time": {"column": "at", "unit": "s"},
                "events": {"column": "event", "weights": {"view": 1, "buy": 2}, "seen": ["buy"]},
            },
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
        "model": {"kind": "item_knn"},
        "training": {"metric": "ndcg_at_5"},
        "evaluation": {"ks": [5], "bootstrap_samples": 5, "filter_seen": False},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
    }
    config = tmp_path / "recsys.yaml"
    config.write_text(yaml.safe_dump(raw))
    run = recsys.train(str(config), quiet=True)
    found = []
    for name, log in (("of_config", config), ("of_one", tmp_path / "one.parquet")):
        recsys.score(run, tmp_path / name, history=str(log), k=3)
        found.append(pq.read_table(tmp_path / name).to_pylist())
    assert len(found[0]) == 8
    assert found[0] == found[1]
    (tmp_path / "none.yaml").write_text("model: {kind: ease}\n")
    with pytest.raises(ConfigError, match=r"none\.yaml: names no log: data\.interactions"):
        log_given(str(tmp_path / "none.yaml"))
