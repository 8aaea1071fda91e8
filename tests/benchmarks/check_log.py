"""CPU seconds of `recsys check` on a log of 5 M rows, and of what an evaluation asks of it.

    check        reads the tables, parts the log and describes it, as the command does
    queries      the users, histories and relevant items of the test part
    user_items   who took what, once a pair: what most plain baselines are fitted on

Users and items are Zipf's over 200,000 and 50,000 ids, so pairs come again as in real logs; one
context column of 1,000 values. One thread.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from _harness import Benchmark, peak_memory_mib, timed

from recsys.features.dataset.dataset import prepare
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import TEST, TRAIN
from recsys.plain.interactions import user_items
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight

SEED, SKEW = 0, 3.0
CONFIG = {
    "data": {"interactions": "log.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "features": [
            {"name": "user", "table": "users", "kind": "categorical"},
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "place", "table": "interactions", "kind": "categorical"},
        ],
    },
}
T = TypeVar("T")


def write_log(folder: Path, rows: int) -> Path:
    """Write a log of `rows` interactions and its configuration; return the latter's path."""
    rng = np.random.default_rng(SEED)

    def drawn(num: int) -> pa.Array:
        return pa.array((rng.random(rows) ** SKEW * num).astype(np.int64))

    columns = {
        "user": drawn(max(rows // 25, 2)),
        "item": drawn(max(rows // 100, 2)),
        "at": pa.array(1_600_000_000 + rng.integers(0, 31_536_000, rows)),
        "place": drawn(min(1000, rows)),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def main() -> None:
    bench = Benchmark("check_log", __doc__ or "")
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = bench.sized(5_000_000, 500_000, 2_000)
    figures: dict[str, Any] = {"rows": rows, "seed": SEED, "threads": 1}

    def measured(name: str, call: Callable[[], T]) -> T:
        found: list[T] = []
        figures[f"{name}_cpu_s"] = round(timed(lambda: found.append(call())).cpu, 2)
        bench.row(name.replace("_", " "), f"{figures[f'{name}_cpu_s']:7.2f} CPU s")
        return found[0]

    with tempfile.TemporaryDirectory(prefix="check-log-") as folder:
        config = load_config(write_log(Path(folder), rows), bench.overrides)
        measured("check", lambda: preflight(config))
        data = prepare(config.schema_, config.data, config.policies, config.split)
    measured(
        "queries",
        lambda: build_queries(
            data, TEST, history_length=50, filter_seen=True, limit=10_000, seed=SEED
        ),
    )
    events, trained = data.tables.events, data.events_of((TRAIN,))
    of_training = events.user_row[trained], events.item_row[trained]
    measured("user_items", lambda: user_items(*of_training, data.num_items))
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
