"""What a training step of the two-tower costs in memory and time as the catalogue grows.

Synthetic logs: 10,000, 100,000 and 1,000,000 items, the same 200,000 events of 10,000 users with
10,000 of them, some popular and some not, the others with no event yet; ids only, the engine's
defaults, the same table and batch. Each in a process of its own. `step_growth_mib` is the largest
resident memory over some steps less that before them, `step_allocates_mib` what torch allocates in
one step in all, `loader_peak_mib` the most that numpy holds while a batch is made, `fixed_mib`
what the process holds once everything is loaded, `arrays_mib` what of it is encoded items and
log inclusion. Times are of one thread's processor.

    --set taken=1000000    events with more of the items: batches with more distinct ones
    --set sizes=10000,1000000 --set training.batch_size=512
"""

import json
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _harness import Benchmark
from torch.profiler import ProfilerActivity, profile

from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.task import CONTEXT_DROPOUT, two_tower_task

EVENTS, USERS, STEPS = 200_000, 10_000, 12
SIZES = (10_000, 100_000, 1_000_000)


def write_log(folder: Path, num_items: int, taken: int, events: int, users: int) -> dict[str, Any]:
    """Write the tables; return the experiment."""
    rng = np.random.default_rng(0)
    columns = {
        "user_id": rng.integers(0, users, events),
        "item_id": (rng.random(events) ** 3 * min(num_items, taken)).astype(np.int64),
        "time": np.arange(events),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    pq.write_table(pa.table({"item_id": np.arange(num_items)}), folder / "items.parquet")
    return {
        "data": {
            "interactions": str(folder / "log.parquet"),
            "items": str(folder / "items.parquet"),
        },
        "schema": {
            "interactions": {"user": "user_id", "item": "item_id", "order": "time"},
            "items": {"key": "item_id"},
            "features": [
                {"name": "item_id", "table": "items", "kind": "categorical"},
                {"name": "user_id", "table": "users", "kind": "categorical"},
            ],
        },
        "split": {"kind": "leave_one_out"},
    }


def resident_mib() -> float:
    """Return what the process holds now."""
    return _status("VmRSS")


def growth_mib(call: Callable[[], object]) -> float:
    """Return the largest resident memory during the call less that before it."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest so far
    before = resident_mib()
    call()
    return _status("VmHWM") - before


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def cpu_ms(calls: list[Callable[[], object]]) -> float:
    """Return the median CPU time of a call."""
    found = []
    for call in calls:
        started = time.process_time()
        call()
        found.append((time.process_time() - started) * 1000)
    return statistics.median(found)


def measure(raw: dict[str, Any]) -> dict[str, float]:
    """Load, step; return the figures."""
    torch.set_num_threads(1)
    keep_freed_memory()
    config = parse_config(raw, source="catalogue_memory")
    training = config.training
    data = load_data(config)
    few = build_queries(data, VALIDATION, history_length=1, filter_seen=True, limit=1, seed=0)
    task = two_tower_task(config, data, few, World())
    loader = PairLoader(
        data,
        LoaderConfig(
            batch_size=training.batch_size,
            uniform_negatives=training.uniform_negatives,
            history_length=config.model.history_length,
            id_dropout=training.id_dropout,
            context_dropout=CONTEXT_DROPOUT,
            seed=0,
        ),
    )
    order = loader.order(0)

    def load(step: int) -> Any:
        return loader.batch(0, step, order)

    def train(step: int) -> None:
        task.trained.optimizer.zero_grad(set_to_none=True)
        task.loss(batches[step]).backward()
        task.trained.optimizer.step()

    fixed = resident_mib()
    batches: list[Any] = []
    tracemalloc.start()
    load(0)
    loading = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    batches += [load(step) for step in range(STEPS)]
    stepping = growth_mib(lambda: [train(step) for step in range(STEPS)])
    load_ms = cpu_ms([lambda step=step: load(step) for step in range(STEPS)])  # type: ignore[misc]
    step_ms = cpu_ms([lambda step=step: train(step) for step in range(STEPS)])  # type: ignore[misc]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        train(0)
    allocated = sum(max(0, one.self_cpu_memory_usage) for one in seen.key_averages())
    items = data.items.single.nbytes + data.items.dense.nbytes + loader.log_inclusion.nbytes
    return {
        "items": data.num_items,
        "items_a_batch": statistics.median(len(batch.items) for batch in batches),
        "loader_ms": round(load_ms, 2),
        "step_ms": round(step_ms, 2),
        "loader_peak_mib": round(loading, 1),
        "step_growth_mib": round(stepping, 1),
        "step_allocates_mib": round(allocated / 2**20, 1),
        "arrays_mib": round(items / 2**20, 1),
        "fixed_mib": round(fixed),
    }


def main() -> None:
    bench = Benchmark("catalogue_memory", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    sizes = [int(one) for one in given.pop("sizes", ",".join(map(str, SIZES))).split(",")]
    taken = int(given.pop("taken", SIZES[0]))
    training = {key.removeprefix("training."): json.loads(one) for key, one in given.items()}
    events, users = bench.sized((EVENTS, USERS), (EVENTS, USERS), (2_000, 100))
    rows = []
    for num_items in bench.sized(sizes, sizes[:2], [1_000]):
        with (
            tempfile.TemporaryDirectory(prefix="catalogue_memory-") as folder,
            bench.workers(1) as own_process,
        ):
            raw = {**write_log(Path(folder), num_items, taken, events, users), "training": training}
            rows.append(own_process.submit(measure, raw).result())
        bench.row(f"{num_items} items", str(rows[-1]))
    bench.finish(
        {"sizes": rows, "events": events, "taken": taken, "users": users, "threads": 1, "seed": 0}
    )


if __name__ == "__main__":
    sys.exit(main())
