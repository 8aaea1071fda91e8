"""Windows over a table of orders: how fast, and what a ranker gains that only a join can see.

Speed: counts, sums, last and distinct values of 30 days before 1 M rows, over 5 M rows of a
relation whose keys have a long tail; and polars, where it is installed, with a cumulative sum and
two ASOF joins for the sums.

Quality: a generated world of three tables. A shown item is clicked more often where
its user ordered it in the 14 days before, and less the more the user ordered in the 7 days before;
users and items have tastes of 4 numbers besides. A perceptron reads user and item, the past of the
log (`count`, `elapsed`), or that and windows over the orders, with three seeds of the training; the
mean difference has an interval of 1,000 resamples of the test rows. `reachable` is the AUC of the
true probabilities.

    --set rows=20000        rows of the world's log (default 40,000)
    --set seeds=1           fewer seeds (default 3)
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from _harness import Benchmark, peak_memory_mib
from _ranker_runs import Run, averaged, gain_of_seeds, trained
from numpy.typing import NDArray

from recsys.features.relations.timeline import Timeline
from recsys.metrics.classification import auc
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import open_rows, rebatched

DAY, START, DAYS = 86_400, 1_700_000_000, 120
SPAN = 30 * DAY * 1_000_000
BASE: list[dict[str, Any]] = [
    {"name": "user", "table": "users", "kind": "categorical"},
    {"name": "item", "table": "items", "kind": "categorical"},
]
LOGGED: list[dict[str, Any]] = [
    {"name": "clicks_before", "kind": "count", "of": "user"},
    {"name": "since_row", "kind": "elapsed", "of": "user"},
]
WINDOWS: list[dict[str, Any]] = [
    {"name": "same_14d", "kind": "window", "of": "orders", "by": "pair", "window": "14d"},
    {"name": "orders_7d", "kind": "window", "of": "orders", "by": "user", "window": "7d"},
    {"name": "item_30d", "kind": "window", "of": "orders", "by": "item", "window": "30d"},
    {"name": "since_same", "kind": "window", "of": "orders", "by": "pair", "take": "since"},
]
ORDERS = {"keys": {"user": "users", "item": "items"}, "time": {"column": "time", "unit": "s"}}


def seconds_of(bench: Benchmark) -> dict[str, float]:
    """Time windows of each kind; the sums against polars, which must find the same."""
    rows, asked = bench.sized((5_000_000, 1_000_000), (500_000, 100_000), (5_000, 1_000))
    rng = np.random.default_rng(0)
    keys = rows // 25
    owner, of = (rng.zipf(1.3, size) % keys for size in (rows, asked))
    at, when = (rng.integers(0, 365 * DAY, size) * 1_000_000 for size in (rows, asked))
    cents, product = rng.integers(1, 10_000, rows).astype(np.float64), rng.integers(0, 5000, rows)
    found: dict[str, float] = {}
    sums: NDArray[np.float64] = np.zeros(0)
    for take, value in (("count", None), ("sum", cents), ("last", cents), ("distinct", product)):
        started = time.process_time()
        line = Timeline(owner, at, value)
        windows = line.windows(of, when, SPAN)
        if take == "sum":
            sums = line.sums(windows)
        elif take != "count":
            getattr(line, take)(windows)
        found[f"{take}_cpu_s"] = round(time.process_time() - started, 2)
        bench.row(take, f"{found[f'{take}_cpu_s']:.1f} CPU s")
    started = time.process_time()
    joined = _by_joins({"key": owner, "at": at, "value": cents}, {"key": of, "at": when})
    found["polars_sum_cpu_s"] = round(time.process_time() - started, 2)
    bench.row("sum by polars", f"{found['polars_sum_cpu_s']:.1f} CPU s")
    assert np.array_equal(sums, joined), "both are sums of whole numbers"
    return found | {"relation_rows": rows, "asked_rows": asked}


def _by_joins(rows: dict[str, Any], asked: dict[str, Any]) -> NDArray[np.float64]:
    """Return the sums as a difference of cumulative ones, each found by an ASOF join."""
    table = pl.DataFrame(rows).sort("key", "at")
    table = table.with_columns(pl.col("value").cum_sum().over("key").alias("sum")).sort("at")
    want = pl.DataFrame(asked).with_row_index("row")

    def until(shift: int) -> NDArray[np.float64]:
        moved = want.with_columns(pl.col("at") - shift - 1).sort("at")
        found = moved.join_asof(
            table.select("key", "at", "sum"), on="at", by="key", check_sortedness=False
        )
        return found.sort("row")["sum"].fill_null(0.0).to_numpy()

    return until(0) - until(SPAN)


def write_world(folder: Path, rows: int) -> NDArray[np.float64]:
    """Write log and orders; return the true probability of each row of the log."""
    rng = np.random.default_rng(1)
    users, items, orders = max(rows // 50, 4), max(rows // 400, 4), rows
    buyer, bought = rng.integers(0, users, orders), rng.integers(0, items, orders)
    at = START + rng.integers(0, DAYS * DAY, orders)
    when = START + np.sort(rng.choice(DAYS * DAY, rows, replace=False))
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    # Half of what is shown was ordered by the user at some time, before or after.
    shown = rng.integers(0, orders, rows)
    again = rng.random(rows) < 0.5
    user, item = np.where(again, buyer[shown], user), np.where(again, bought[shown], item)
    order = np.argsort(buyer, kind="stable")
    starts = np.searchsorted(buyer[order], np.arange(users + 1))
    same, recent = np.zeros(rows, bool), np.zeros(rows)
    for row in range(rows):
        mine = order[starts[user[row]] : starts[user[row] + 1]]
        age = when[row] - at[mine]
        same[row] = ((bought[mine] == item[row]) & (age > 0) & (age <= 14 * DAY)).any()
        recent[row] = ((age > 0) & (age <= 7 * DAY)).sum()
    match = (rng.normal(size=(users, 4))[user] * rng.normal(size=(items, 4))[item]).sum(1)
    probability = 1 / (1 + np.exp(1.0 - 0.4 * match - 2.0 * same + 0.5 * np.minimum(recent, 4)))
    log = {"user": user, "item": item, "time": when, "click": rng.random(rows) < probability}
    pq.write_table(pa.table({**log, "click": log["click"].astype(np.int8)}), folder / "log.parquet")
    table = pa.table({"user": buyer, "item": bought, "time": at})
    pq.write_table(table, folder / "orders.parquet")
    return probability


def runs_of(
    folder: Path, features: list[dict[str, Any]], epochs: int, seeds: int
) -> tuple[list[Run], Any]:
    """Train a perceptron on features, once a seed; return its runs and the rows."""
    windows = [one for one in features if one["kind"] == "window"]
    others = {"others": {"orders": str(folder / "orders.parquet")}} if windows else {}
    roles = {
        "user": "user", "item": "item", "label": {"column": "click"},
        "time": {"column": "time", "unit": "s"},
    }  # fmt: skip
    schema: dict[str, Any] = {"interactions": roles, "features": features}
    raw = {
        "data": {"interactions": str(folder / "log.parquet"), **others},
        "schema": schema | ({"relations": {"orders": ORDERS}} if windows else {}),
        "split": {"kind": "time"},
        "model": {"kind": "mlp"},
        "embedding": {"num_rows": 8192, "dim": 8, "weight_decay": 0.1},
        "training": {"batch_size": 512, "epochs": epochs, "patience": 3},
        "tracking": {"enabled": False},
    }
    config: Any = parse_config(raw, source="relation_windows")
    rows, found = open_rows(config, World()), []
    for seed in range(seeds):
        training = config.training.model_copy(update={"seed": seed})
        seeded = config.model_copy(update={"training": training})
        found.append(trained(seeded, rebatched(seeded, rows)))
    return found, rows


def main() -> None:
    """Run."""
    bench = Benchmark("relation_windows", __doc__ or "")
    given = dict(one.split("=", 1) for one in bench.overrides)
    figures: dict[str, Any] = seconds_of(bench)
    rows = int(given.pop("rows", bench.sized(40_000, 10_000, 1_500)))
    ways = {"ids": BASE, "past of the log": BASE + LOGGED, "windows": BASE + LOGGED + WINDOWS}
    seeds = int(given.pop("seeds", bench.sized(3, 1, 2)))
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="relations-") as folder:
        probability = write_world(Path(folder), rows)
        for way, features in ways.items():
            runs[way], read = runs_of(Path(folder), features, bench.sized(10, 5, 1), seeds)
            figures[way] = averaged([one.figures() for one in runs[way]], "auc")
            bench.row(way, f"AUC {figures[way]['auc']:.4f}")
        test = read.loader.data.tables.events.row[read.loader.data.events_of((2,))]
        figures["reachable"] = round(auc(probability[test], runs["ids"][0].found.label), 4)
    for way in ("ids", "past of the log"):
        gain = gain_of_seeds(runs["windows"], runs[way], bench.sized(1000, 200, 5))
        figures["windows"][f"above {way}"] = [round(one, 4) for one in gain]
        bench.row(f"windows above {way}", str(figures["windows"][f"above {way}"]))
    bench.row("reachable", f"AUC {figures['reachable']:.4f}")
    memory = {"peak_memory_mib": peak_memory_mib()}
    bench.finish({**figures, "rows": rows, "seeds": seeds, **memory})


if __name__ == "__main__":
    main()
