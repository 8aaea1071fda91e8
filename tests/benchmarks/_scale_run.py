"""One training and one scoring of a made-up log, measured by stage: a process of its own.

Prints one line of JSON. Arguments: a JSON object with kind, rows, users, items, epochs.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys.app.configuration import Config
from recsys.app.experiments import train
from recsys.app.models import score
from recsys.core.events import Event, StepDone

SEED, SKEW = 0, 2.0
_FEATURES = [
    {"name": "item", "table": "items", "kind": "categorical", "multiplicity": 2},
    {"name": "category", "table": "items", "kind": "categorical"},
    {"name": "brand", "table": "items", "kind": "categorical"},
]
_USER = {"name": "user", "table": "users", "kind": "categorical", "multiplicity": 2}


def write_tables(folder: Path, rows: int, users: int, items: int) -> None:
    """Write a log with Zipf-like items, and the items' attributes."""
    rng = np.random.default_rng(SEED)
    log = {
        "user": pa.array(rng.integers(0, users, rows)),
        "item": pa.array((rng.random(rows) ** SKEW * items).astype(np.int64)),
        "at": pa.array(np.sort(1_600_000_000 + rng.integers(0, 31_536_000, rows))),
        "clicked": pa.array(rng.integers(0, 2, rows)),
    }
    about = {
        "item": pa.array(np.arange(items)),
        "category": pa.array([f"c{row % 200}" for row in range(items)]),
        "brand": pa.array([f"b{row % 1000}" for row in range(items)]),
    }
    log |= {name: about[name].take(log["item"]) for name in ("category", "brand")}
    pq.write_table(pa.table(log), folder / "log.parquet", row_group_size=100_000)
    pq.write_table(pa.table(about), folder / "items.parquet")


def config_of(kind: str, epochs: int, table_rows: int) -> dict[str, Any]:
    """Return the configuration of a run: what each kind of model has by default."""
    interactions: dict[str, Any] = {"user": "user", "item": "item"}
    interactions["time"] = {"column": "at", "unit": "s"}
    config: dict[str, Any] = {
        "data": {"interactions": "log.parquet", "items": "items.parquet"},
        "schema": {
            "interactions": interactions,
            "items": {"key": "item"},
            "features": _FEATURES if kind == "session" else [*_FEATURES, _USER],
        },
        "split": {"kind": "time"},
        "embedding": {"num_rows": table_rows},
        "model": {"kind": kind},
        "training": {"epochs": epochs, "patience": epochs},
        "evaluation": {"baselines": ["popularity"], "bootstrap_samples": 10},
        "tracking": {"enabled": False},
    }
    if kind == "autoint":
        interactions["label"] = {"column": "clicked"}
        del config["schema"]["items"]
        features = [*_FEATURES, _USER]
        config["schema"]["features"] = [{**one, "table": "interactions"} for one in features]
        config["data"] = {"interactions": "log.parquet", "stream": True}
        config["evaluation"] = {"bootstrap_samples": 10}
    return config


def measured(kind: str, rows: int, users: int, items: int, epochs: int, table: int) -> Mapping:
    """Return CPU seconds of each stage and peak memory in MiB, in one thread."""
    torch.set_num_threads(1)
    marks: list[tuple[float, int]] = []
    peaks: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            if not marks:
                peaks.append(_peak_mib())
            marks.append((time.process_time(), event.global_step))

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_tables(Path(folder), rows, users, items)
        start, before = time.process_time(), _peak_mib()
        settings = Config(config_of(kind, epochs, table))
        run = train(settings, listener=listen, quiet=True)
        ended, trained = time.process_time(), _peak_mib()
        if kind == "autoint":
            score(run.bundle, "scores", requests="log.parquet")
        else:
            score(run.bundle, "scores", history="log.parquet", items="items.parquet")
        scored = time.process_time()
    steps = marks[-1][1] - marks[0][1]
    return {
        "kind": kind, "rows": rows, "users": users, "items": items, "epochs": epochs,
        "table": table,
        "prepare_cpu_s": marks[0][0] - start,
        "train_cpu_s": (marks[-1][0] - marks[0][0]) * (steps + 1) / max(steps, 1),
        "finish_cpu_s": ended - marks[-1][0],
        "score_cpu_s": scored - ended,
        "before_mib": before, "prepare_mib": peaks[0], "train_mib": trained,
    }  # fmt: skip


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measured(**json.loads(sys.argv[1]))))
