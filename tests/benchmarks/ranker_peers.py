"""AUC and log loss of the peers' rankers beside ours, by the processor time that they took.

FuxiCTR and DeepCTR-Torch on the rows of `autoint_ml1m` (setting b; of the genres one value for each
combination) and of `frappe` without rates, with what the field's own figures rest on: width 16,
perceptrons of (400, 400) with batch normalisation and dropout 0.1, batches of 4,096, Adam at 0.001,
L2 on the embedding, the rate divided by ten after an epoch without a better validation AUC, the end
after two, and the epoch with the best one kept. The L2 is the best of a grid for each data set, by
the validation AUC of FuxiCTR's perceptron; DeepCTR-Torch, which takes no half of the squares, gets
half of it. FuxiCTR's models are not in its wheel: they are put together of the wheel's parts
(peers/rivals.py). Their probabilities are calibrated on the validation rows as ours are (`beta`);
as they come: `test_logloss`.

Ours are read from the saved figures of `autoint_ml1m` and `frappe`, the first seed of each, and all
curves are drawn as docs/ranker_peers.png: test AUC of the epoch so far best on the validation rows.

    --set data=frappe            one of the data sets
    --set models=fuxictr dcn     some of the models
    --set seeds=3                more seeds (default 1); the grid is of the first
    --set add=true               beside the figures that are saved already

Needs the data on loan (RECSYS_DATA) and the peers' environment (`make peers`).
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from _harness import Benchmark, kept_of
from _loaned import loaned
from _ranker_picture import draw
from _ranker_runs import averaged
from embedding_methods.datasets import SINGLE, read_joined
from peers.process import Trainer, number, peers_are_there, write_part
from scipy.special import logit

from recsys.metrics.classification import auc, log_loss
from recsys.training.families.ranker.calibrating import fit_calibrator

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "ranker_peers.png"
SIZES = {
    "dim": 16,
    "heads": 2,
    "layers": 3,
    "hidden": [400, 400],
    "batch_norm": True,
    "dropout": 0.1,
    "batch_size": 4096,
    "learning_rate": 0.001,
}
MODELS: dict[str, dict[str, Any]] = {
    "fuxictr mlp": {"kind": "mlp"},
    "fuxictr dcn": {"kind": "dcn"},
    "fuxictr autoint+": {"kind": "autoint"},
    "fuxictr finalmlp": {"kind": "finalmlp", "second_hidden": [400]},
    "deepctr autoint+": {"first_order": True},
}
CHOOSES = "fuxictr mlp"
"""The model whose validation AUC chooses the L2."""
GRID = {"frappe": (0.01, 0.03, 0.1), "ml1m": (0.003, 0.01)}
PATIENCE = 2
EPS = 1e-7
Figures = dict[str, Any]


def ml1m() -> pd.DataFrame:
    """Return the rows of `autoint_ml1m`."""
    rows = read_joined().to_pandas()[[*SINGLE, "genres", "label", "split"]]
    return rows.replace({"split": {"valid": "validation"}})


def frappe() -> pd.DataFrame:
    """Return the rows of `frappe`."""
    return pq.read_table(loaned("frappe") / "frappe.parquet").to_pandas()


DATA = {"frappe": frappe, "ml1m": ml1m}
OURS = {"frappe": ("frappe", "rates_no"), "ml1m": ("autoint_ml1m", "b")}
"""The saved benchmark of ours, and where in it the same rows are."""


def write_rows(rows: pd.DataFrame, folder: Path) -> None:
    """Write the three parts of the split."""
    columns = [rows[name] for name in rows if name not in ("label", "split")]
    fields, sizes = number(columns, [False] * len(columns))
    np.save(folder / "sizes.npy", sizes)
    for part, prefix in (("train", ""), ("validation", "validation_"), ("test", "test_")):
        there = (rows["split"] == part).to_numpy()
        write_part(folder, prefix, fields[there], rows["label"].to_numpy()[there])


def run(name: str, folder: Path, epochs: int, settings: Figures) -> Figures:
    """Train one model; return its curve and its figures at the best epoch."""
    peer = name.split(" ")[0]
    trainer = Trainer(peer, folder, SIZES | MODELS[name] | settings)
    best: Figures = {"validation_auc": 0.0}
    curve: list[dict[str, float]] = []
    cpu = 0.0
    for epoch in range(1, epochs + 1):
        cpu += trainer.order("epoch")["cpu"]
        found: dict[str, float] = {}
        said = {}
        for part in ("validation", "test"):
            took = trainer.order(f"evaluate {part}")["cpu"]
            cpu += took if part == "validation" else 0.0
            label = np.load(folder / f"{part}_label.npy")
            score = np.load(folder / f"{peer}_{part}.npy").astype(np.float64)
            weight = np.ones_like(label)
            found[f"{part}_auc"] = round(auc(score, label, weight), 5)
            found[f"{part}_logloss"] = round(log_loss(score, label, weight), 5)
            said[part] = logit(np.clip(score, EPS, 1 - EPS)), label, weight
        calibrated = fit_calibrator("beta", *said["validation"]).probability(said["test"][0])
        found["calibrated_logloss"] = round(log_loss(calibrated, *said["test"][1:]), 5)
        curve.append({"cpu_s": round(cpu, 1), **found})
        if found["validation_auc"] > best["validation_auc"]:
            best = {"best_epoch": epoch, **found}
        elif epoch - best["best_epoch"] >= PATIENCE:
            break
        else:
            trainer.order("slower")
    trainer.close()
    names = {"auc": best["test_auc"], "logloss": best["calibrated_logloss"]}
    return {**best, **names, "cpu_s": round(cpu, 1), "curve": curve}


def ours(data: str) -> Figures:
    """Return the saved figures of this package's rankers on the same rows."""
    file, place = OURS[data]
    found: Figures = kept_of(file).get(place, {})
    return {name: point for name, point in found.items() if point.get("runs")}


def measure(bench: Benchmark, data: str, names: list[str], given: dict[str, str]) -> Figures:
    """Train the peers' models on one data set."""
    if not names:  # no peers here
        return {}
    epochs = 1 if bench.quick else int(given.get("epochs", 40))
    seeds = range(1 if bench.quick else int(given.get("seeds", 1)))
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="ranker_peers-") as temporary:
        folder = Path(temporary)
        write_rows(DATA[data](), folder)
        grid = {l2: run(CHOOSES, folder, epochs, {"regularizer": l2}) for l2 in GRID[data]}
        tried = {l2: found["validation_auc"] for l2, found in grid.items()}
        l2 = max(tried, key=tried.__getitem__)
        bench.row(data, f"L2 {l2} of {tried}")
        for name in names:
            settings = {"regularizer": l2 / 2 if name.startswith("deepctr") else l2}
            runs = [
                grid[l2]
                if (name, seed) == (CHOOSES, 0)
                else run(name, folder, epochs, {**settings, "seed": seed})
                for seed in seeds
            ]
            figures[name] = {**averaged(runs), "runs": runs}
            point = figures[name]
            bench.row(
                f"{data} {name}",
                f"AUC {point['auc']:.4f} +- {point['auc_deviation']:.4f}, log loss "
                f"{point['logloss']:.4f}, {runs[0]['cpu_s']:.0f} CPU s a run",
            )
    return {**figures, "l2": {"chosen": l2, "validation_auc": tried}}


def main() -> None:
    bench = Benchmark("ranker_peers", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    loaned("ml-1m"), loaned("frappe")
    if not peers_are_there(bench) and not bench.smoke:
        sys.exit(1)
    names = [] if bench.smoke else given.get("models", ",".join(MODELS)).split(",")
    figures: Figures = bench.kept() if given.get("add") else {}
    for data in given.get("data", ",".join(DATA)).split(","):
        figures[data] = figures.get(data, {}) | measure(bench, data, names, given)
        bench.keep(figures)
    curves = {
        data: {**ours(data), **{n: one for n, one in figures[data].items() if "runs" in one}}
        for data in DATA
        if data in figures
    }
    if bench.save:
        draw(curves, PICTURE)
    bench.finish({**figures, "settings": SIZES, "threads": 1})


if __name__ == "__main__":
    sys.exit(main())
