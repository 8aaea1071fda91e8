"""A rare outcome learnt beside a frequent one, or alone: AUC of purchases that follow clicks.

A generated log of shown items, a new one a seed: users and items have tastes of 4 numbers. A click
depends on their match, on the item and on the place; a purchase follows clicks alone, depends on
the same match and on how the item's price suits the user, and is 0 in all other rows. A perceptron
learns the purchases alone; `shared_bottom` and `mmoe` have the click for a label and the purchase
for a further outcome, so it is by the click's validation AUC that their epoch is kept. Features are
user and item ids, the place and the price; the recipe is the same for all; size and
patience were chosen while looking at the first seed.

    --set rows=20000              another size (default 60,000)
    --set training.epochs=4       any key of `training`, for all runs
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _harness import Benchmark
from _ranker_runs import averaged, figures_of, trained
from autoint_ml1m import nested

from recsys.metrics.classification import auc
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import open_rows

PURCHASE = {"name": "purchase", "column": "bought"}
FEATURES = [
    {"name": "user", "table": "interactions", "kind": "categorical"},
    {"name": "item", "table": "interactions", "kind": "categorical"},
    {"name": "place", "table": "interactions", "kind": "categorical"},
    {"name": "price", "table": "interactions", "kind": "numeric"},
]
SETTINGS: dict[str, Any] = {
    "embedding": {"num_rows": 8192, "dim": 8, "weight_decay": 0.1},
    "training": {"batch_size": 512, "epochs": 15, "patience": 15},
    "tracking": {"enabled": False},
}
WAYS: dict[str, dict[str, Any]] = {
    "alone": {"model": {"kind": "mlp"}, "label": {"column": "bought"}},
    "shared_bottom": {"model": {"kind": "shared_bottom"}, "label": {"column": "clicked"}},
    "mmoe": {"model": {"kind": "mmoe"}, "label": {"column": "clicked"}},
}


def write_log(path: Path, rows: int, seed: int) -> float:
    """Write the log; return the AUC of the purchases' true probabilities in the test rows."""
    rng = np.random.default_rng(seed)
    users, items = max(rows // 100, 2), max(rows // 300, 2)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    place = rng.integers(0, 5, rows)
    match = (rng.normal(size=(users, 4))[user] * rng.normal(size=(items, 4))[item]).sum(1) / 2**0.5
    price = rng.normal(size=items)
    suits = -np.abs(price[item] - rng.normal(size=users)[user])
    click = match + rng.normal(0, 0.7, items)[item] + rng.normal(0, 0.7, 5)[place] - 1.8
    click_p, purchase_p = 1 / (1 + np.exp(-click)), 1 / (1 + np.exp(2.5 - match - 1.5 * suits))
    clicked = rng.random(rows) < click_p
    bought = clicked & (rng.random(rows) < purchase_p)
    columns = {"user": user, "item": item, "place": place, "price": price[item]}
    labels = {"clicked": clicked.astype(np.int8), "bought": bought.astype(np.int8)}
    pq.write_table(pa.table({**columns, **labels}), path)
    test = slice(round(0.9 * rows), None)
    return auc((click_p * purchase_p)[test], bought[test])


def run(folder: Path, way: str, training: dict[str, Any]) -> dict[str, float]:
    """Train one way; return its figures of the test rows."""
    roles: dict[str, Any] = {"label": WAYS[way]["label"]}
    if way != "alone":
        roles["outcomes"] = [PURCHASE]
    raw = {
        **SETTINGS,
        "data": {"interactions": str(folder / "log.parquet"), "stream": True},
        "schema": {"interactions": roles, "features": FEATURES},
        "model": WAYS[way]["model"],
        "training": {**SETTINGS["training"], **training},
        "cache": str(folder / "cache"),
    }
    config: Any = parse_config(raw, source="multi_task")
    done = trained(config, open_rows(config, World()))
    found = done.found.outcomes.get("purchase", done.found)
    point = figures_of(found.logit, found.probability, found.label)
    if way != "alone":
        point["click_auc"] = done.figures()["auc"]
    share = float(found.label.mean())
    return {**point, "cpu_s": done.cpu_s, "best_epoch": done.best_epoch, "share": share}


def main() -> None:
    """Run."""
    bench = Benchmark("multi_task", __doc__ or "")
    given = dict(one.split("=", 1) for one in bench.overrides)
    rows = int(given.pop("rows", bench.sized(60_000, 20_000, 1_500)))
    training = nested(given).get("training", {})
    if bench.smoke:
        training["epochs"] = 1
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    reachable = []
    for seed in range(bench.sized(3, 1, 1)):
        with tempfile.TemporaryDirectory(prefix="multi-task-") as folder:
            reachable.append(write_log(Path(folder) / "log.parquet", rows, seed))
            for way, found in results.items():
                found.append(run(Path(folder), way, {**training, "seed": seed}))
                shown = ", ".join(f"{name} {value:.4f}" for name, value in found[-1].items())
                bench.row(f"{way}, seed {seed}", shown)
    figures: dict[str, Any] = {"rows": rows, "seeds": len(reachable)}
    figures["reachable"] = averaged([{"auc": one} for one in reachable], "auc")
    for way, found in results.items():
        names = [name for name in found[0] if name != "best_epoch"]
        figures[way] = averaged(found, *names)
        pairs = zip(found, results["alone"], strict=True)
        figures[way]["above_alone"] = [round(one["auc"] - alone["auc"], 4) for one, alone in pairs]
        bench.row(way, f"AUC of purchases {figures[way]['auc']:.4f}")
    bench.row("reachable", f"AUC of purchases {figures['reachable']['auc']:.4f}")
    bench.finish(figures)


if __name__ == "__main__":
    main()
