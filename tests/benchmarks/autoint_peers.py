"""AUC and log loss of the peers' AutoInt on MovieLens-1M, the AutoInt authors' split, setting (b).

DeepCTR-Torch and FuxiCTR on the rows of `autoint_ml1m`, user and film ids among the eight fields
(genres: one value for each combination), width 16, all else their defaults: Adam at 0.001,
perceptrons of (256, 128) and (64, 64, 64) where there is one, batches of 1,024. Of each run the
epoch with the best validation AUC counts; it ends after two without a better one.

    --set epochs=10     the most epochs a model may take
    --set models=fuxictr,deepctr+

Needs the data on loan (RECSYS_DATA) and the peers' environment (`make peers`).
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Benchmark
from _loaned import loaned
from embedding_methods.datasets import SINGLE, read_joined
from peers.process import Trainer, number, peers_are_there, write_part

from recsys.metrics.classification import auc, log_loss

SIZES = {"dim": 16, "heads": 2, "layers": 3, "batch_size": 1024, "learning_rate": 0.001}
MODELS: dict[str, dict[str, Any]] = {
    "deepctr": {"hidden": [], "first_order": True},
    "deepctr+": {"hidden": [256, 128], "first_order": True},
    "fuxictr": {"hidden": []},
    "fuxictr+": {"hidden": [64, 64, 64]},
    "fuxictr dcn": {"hidden": [64, 64, 64], "dcn": True},
}
PATIENCE = 2


def write_rows(folder: Path) -> None:
    """Write the three parts of the split."""
    rows = read_joined().to_pandas()
    columns = [rows[name] for name in (*SINGLE, "genres")]
    fields, sizes = number(columns, [False] * len(columns))
    np.save(folder / "sizes.npy", sizes)
    for part, prefix in (("train", ""), ("valid", "validation_"), ("test", "test_")):
        there = (rows["split"] == part).to_numpy()
        write_part(folder, prefix, fields[there], rows["label"].to_numpy()[there])


def run(name: str, folder: Path, epochs: int) -> dict[str, float]:
    """Train one model; return its figures at the best epoch."""
    peer = name.split(" ")[0].removesuffix("+")
    trainer = Trainer(peer, folder, SIZES | MODELS[name])
    best: dict[str, float] = {}
    for epoch in range(1, epochs + 1):
        cpu = trainer.order("epoch")["cpu"]
        found: dict[str, float] = {"best_epoch": epoch, "cpu_s_an_epoch": round(cpu, 1)}
        for part in ("validation", "test"):
            trainer.order(f"evaluate {part}")
            label = np.load(folder / f"{part}_label.npy")
            score = np.load(folder / f"{peer}_{part}.npy").astype(np.float64)
            weight = np.ones_like(label)
            found[f"{part}_auc"] = round(auc(score, label, weight), 5)
            found[f"{part}_logloss"] = round(log_loss(score, label, weight), 5)
        if not best or found["validation_auc"] > best["validation_auc"]:
            best = found
        elif epoch - best["best_epoch"] >= PATIENCE:
            break
    trainer.close()
    return best


def main() -> None:
    bench = Benchmark("autoint_peers", __doc__ or "")
    loaned("ml-1m")
    if not peers_are_there(bench) and not bench.smoke:
        sys.exit(1)
    given = dict(override.split("=", 1) for override in bench.overrides)
    names = [] if bench.smoke else given.get("models", ",".join(MODELS)).split(",")
    epochs = 1 if bench.quick else int(given.get("epochs", 10))
    figures = {}
    with tempfile.TemporaryDirectory(prefix="autoint_peers-") as temporary:
        write_rows(Path(temporary))
        for name in names:
            figures[name] = run(name, Path(temporary), epochs)
            bench.row(name, str(figures[name]))
    bench.finish({"models": figures, "settings": SIZES, "seed": 0, "threads": 1})


if __name__ == "__main__":
    sys.exit(main())
