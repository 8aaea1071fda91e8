"""A ranker on a shop's exports, with and without windows over its orders and its own log.

The shop is made by its generator: events and orders as CSV with ISO dates, products and customers
beside them. A row is a view; its label says whether the same product goes into the cart next. The
configuration is the one that `recsys init` writes: of all tables but the orders (`without`), and of
the orders, too (`proposed`). `counts` has of its windows those of user and of item: orders of 7 and
30 days and the time since the latest; `chosen` has these and others over pairs: what the user
ordered of the item, how often the user viewed it, and with which outcome. The model is a
perceptron, so that all runs take minutes. All are trained with the same seeds on the same rows, the
last tenth by time is the test part; intervals are of 1,000 resamples of the test rows, with the
differences averaged over the seeds.

    --set seeds=1            fewer seeds (default 3)
    --set training.epochs=4  any key of the configuration, for all ways

Needs the generator on loan (RECSYS_DATA).
"""

import csv
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _harness import Benchmark, peak_memory_mib
from _loaned import loaned
from _ranker_runs import averaged, gain_of_seeds, trained

from recsys.features.propose.tables import infer
from recsys.training.config.file import read_yaml
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.overrides import override_key
from recsys.training.families.ranker.rows import open_rows, rebatched

VIEWS = "views.csv"
WAYS = ("without", "proposed", "counts", "chosen")
ABOVE = (
    ("proposed", "without"),
    ("counts", "without"),
    ("chosen", "without"),
    ("chosen", "counts"),
)
COUNTS: list[dict[str, Any]] = [
    {"name": f"orders_{by}_{name}", "kind": "window", "of": "orders", "by": by, **take}
    for by in ("user", "item")
    for name, take in (
        ("7d", {"window": "7d"}),
        ("30d", {"window": "30d"}),
        ("since", {"take": "since"}),
    )
]
ORDERS = {
    "keys": {"customer_id": "users", "product_id": "items"},
    "time": {"column": "ordered_at", "unit": "datetime"},
}
CHOSEN: list[dict[str, Any]] = [
    {"name": "ordered_pair", "kind": "window", "of": "orders", "by": "pair"},
    {"name": "ordered_pair_since", "kind": "window", "of": "orders", "by": "pair", "take": "since"},
    {"name": "viewed_pair", "kind": "window", "of": "interactions", "by": "pair"},
    {
        "name": "carted_pair",
        "kind": "window",
        "of": "interactions",
        "by": "pair",
        "take": "mean",
        "value": "label",
    },
]


def write_views(folder: Path) -> None:
    """Write the views of the events, each with whether the next event puts it into the cart."""
    with (folder / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    following: dict[str, dict[str, str]] = {}
    label: list[int] = []
    for row in reversed(rows):
        after = following.get(row["session_id"])
        same = after is not None and after["product_id"] == row["product_id"]
        label.append(int(same and after is not None and after["event_type"] == "cart"))
        following[row["session_id"]] = row
    with (folder / VIEWS).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event_time", "customer_id", "product_id", "label"])
        for row, carted in zip(rows, reversed(label), strict=True):
            if row["event_type"] == "view" and row["customer_id"]:
                writer.writerow([row["event_time"], row["customer_id"], row["product_id"], carted])


def make_shop(folder: Path, *, smoke: bool) -> None:
    """Write the exports of the shop and its views."""
    if smoke:
        make_up(folder)
    else:
        make = [sys.executable, str(loaned("shop") / "make_shop.py"), str(folder)]
        subprocess.run([*make, "--types", "several"], check=True, stdout=subprocess.DEVNULL)
    write_views(folder)


def make_up(folder: Path) -> None:
    """Write exports of the same columns, of nothing that could be learnt."""
    rng = np.random.default_rng(0)
    visits = rng.integers(0, 90 * 86_400, 400)
    events, orders = [], []
    for number, start in enumerate(np.sort(visits).tolist()):
        user, at = 10_000 + int(rng.integers(0, 60)), datetime(2025, 1, 1) + timedelta(0, start)
        for item in rng.integers(0, 40, 4).tolist():
            at += timedelta(seconds=30)
            row = [f"{at}+01:00", user, f"s{number}", "view", f"{item:07d}"]
            events.append(row)
            if rng.random() < 0.3:
                events.append([*row[:3], "cart", row[4]])
                orders.append([len(orders), row[0], user, row[4], 1, 9.5])
    columns = ["event_time", "customer_id", "session_id", "event_type", "product_id"]
    bought = ["order_id", "ordered_at", "customer_id", "product_id", "quantity", "unit_price"]
    products = [[f"{item:07d}", f"group {item % 4}"] for item in range(40)]
    customers = [[10_000 + user, "Wien"] for user in range(60)]
    folder.mkdir()
    for name, header, rows in (
        ("events", columns, events),
        ("orders", bought, orders),
        ("products", ["product_id", "category"], products),
        ("customers", ["customer_id", "city"], customers),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


def keys_of(folder: Path, way: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return the configuration of a way, as `init` writes it."""
    names = [VIEWS, "products.csv", "customers.csv"]
    names += ["orders.csv"] if way == "proposed" else []
    raw: dict[str, Any] = read_yaml(infer([folder / name for name in names]).yaml, source=way)
    if way in ("counts", "chosen"):
        raw["data"]["others"] = {"orders": str(folder / "orders.csv")}
        raw["schema"]["relations"] = {"orders": ORDERS}
        raw["schema"]["features"] += COUNTS + (CHOSEN if way == "chosen" else [])
    raw["model"] = {"kind": "mlp", "hidden": [64, 64], "dropout": 0.1}
    raw["embedding"]["dim"] = 8
    raw["tracking"] = {"enabled": False}
    for one in overrides:
        override_key(raw, one)
    return raw


def main() -> None:
    """Run."""
    bench = Benchmark("relation_shop", __doc__ or "")
    given = dict(one.split("=", 1) for one in bench.overrides if "." not in one.split("=")[0])
    overrides = tuple(one for one in bench.overrides if "." in one.split("=")[0])
    if bench.smoke:
        overrides += ("training.epochs=1", "model.hidden=[8]", "embedding.num_rows=1024")
    seeds = int(given.get("seeds", bench.sized(3, 1, 2)))
    runs: dict[str, list[Any]] = {way: [] for way in WAYS}
    figures: dict[str, Any] = {"seeds": seeds}
    with tempfile.TemporaryDirectory(prefix="shop-") as place:
        folder = Path(place) / "shop"
        make_shop(folder, smoke=bench.smoke)
        for way in WAYS:
            raw = keys_of(folder, way, overrides)
            config: Any = parse_config(raw, source=way)
            rows = open_rows(config, World())
            figures["test_rows"] = rows.rows[2]
            for seed in range(seeds):
                training = config.training.model_copy(update={"seed": seed})
                seeded = config.model_copy(update={"training": training})
                runs[way].append(trained(seeded, rebatched(seeded, rows)))
            figures[way] = averaged([run.figures() for run in runs[way]], "auc", "logloss", "cpu_s")
            bench.row(way, ", ".join(f"{run.figures()['auc']:.4f}" for run in runs[way]))
    samples = bench.sized(1000, 200, 5)
    for one, other in ABOVE:
        gain = [round(value, 4) for value in gain_of_seeds(runs[one], runs[other], samples)]
        figures[f"{one} above {other}"] = gain
        bench.row(f"{one} above {other}", "{:+.4f} ({:+.4f} to {:+.4f})".format(*gain))
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
