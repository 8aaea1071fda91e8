"""Self-supervised regularisation of rankers on a tenth of MovieLens-1M: AUC, overall and rare.

The AutoInt authors' split (a rating of 3 dropped, above is 1) with user and film ids, of which a
seeded tenth of the training rows is kept, 59,121; validation and test rows are whole. AutoInt and
DCN-V2 without and with the loss of Yao et al. (https://arxiv.org/abs/2007.12865): views of items
and of rows, random and correlated masking; and with the spread-out loss. Of each run the epoch
with the best validation AUC counts. Rare rows: test rows whose user or film has at most 5 of the
training rows, none among them. `CHOSEN` was chosen on the validation rows, AutoInt, seed 0.

    --set search=none,item,row   grids on the validation rows, and nothing else
    --set workers=2              so many runs at a time, a thread each
    --set models=autoint         some of the models
    --set seeds=1                fewer seeds (default 3)
    --set training.epochs=4      any key of the configuration, for all runs

Needs the data on loan (RECSYS_DATA).
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _harness import Benchmark, peak_memory_mib
from _loaned import loaned
from _ranker_runs import mean_and_deviation
from autoint_ml1m import MODELS, SETTINGS, nested
from numpy.typing import NDArray

from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.split import TEST, TRAIN
from recsys.metrics.classification import auc, log_loss
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.task import predictions, ranking_task

SHARE = 0.1
RARE = 5
TRAINING = {
    "batch_size": 1024,
    "epochs": 15,
    "patience": 1,
    "learning_rate": 0.002,
    "id_dropout": 0.0,
    "metric": "auc",
}
GRID: dict[str, dict[str, Any]] = {
    "none": {"id_dropout": [0.0, 0.05, 0.1], "learning_rate": [0.05, 0.1, 0.2]},
    "item": {"weight": [0.001, 0.01], "temperature": [0.1, 0.5]},
    "row": {"weight": [0.001, 0.01], "temperature": [0.1, 0.5]},
}
CHOSEN: dict[str, dict[str, Any]] = {
    "item": {"weight": 0.001, "temperature": 0.5},
    "row": {"weight": 0.001, "temperature": 0.1},
}
METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    **{
        f"{masking} {views}": {
            "kind": "contrastive",
            "views": views,
            "masking": masking,
            **CHOSEN[views],
        }
        for masking in ("correlated", "random")
        for views in ("item", "row")
    },
    "spread_out item": {"kind": "spread_out", "views": "item", "weight": CHOSEN["item"]["weight"]},
}
FEATURES = {"users": ("user_id", "gender", "age", "occupation", "zip_code"), "items": ("movie_id",)}


def write_rows(folder: Path) -> None:
    """Keep a tenth of the training rows, drawn by their numbers."""
    table = pq.read_table(loaned("ml-1m") / "autoint_split.parquet")
    training = np.asarray(table["split"].to_pandas() == "train")
    kept = np.random.default_rng(0).permutation(np.flatnonzero(training))
    kept = kept[: round(SHARE * len(kept))]
    chosen = np.sort(np.concatenate([kept, np.flatnonzero(~training)]))
    pq.write_table(table.take(pa.array(chosen)), folder / "rows.parquet")


def config_of(
    model: str, seed: int, folder: Path, method: dict[str, Any], extra: dict[str, Any]
) -> ExperimentConfig:
    """Return the experiment."""
    features: list[dict[str, Any]] = [
        {"name": name, "table": table, "kind": "categorical"}
        for table, names in FEATURES.items()
        for name in (*names, *(("year",) if table == "items" else ()))
    ]
    features.append(
        {"name": "genres", "table": "items", "kind": "multi_categorical", "separator": "|"}
    )
    roles = {"user": "user_id", "item": "movie_id", "label": {"column": "label"}}
    training = {**TRAINING, "seed": seed, "self_supervision": method, **extra.get("training", {})}
    raw = {
        "data": {
            "interactions": str(folder / "rows.parquet"),
            "items": str(loaned("ml-1m") / "movies.parquet"),
            "users": str(loaned("ml-1m") / "users.parquet"),
        },
        "policies": {"duplicate_events": "keep"},
        "schema": {
            "interactions": roles,
            "items": {"key": "movie_id"},
            "users": {"key": "user_id"},
            "features": features,
        },
        "split": {"kind": "column", "column": "split"},
        "model": {**MODELS[model], **extra.get("model", {})},
        "embedding": {**SETTINGS["b"]["embedding"], **extra.get("embedding", {})},
        "training": training,
    }
    return parse_config(raw, source="ssl_ranker")


def rare_rows(rows: RankingRows) -> NDArray[np.bool_]:
    """Return which test rows have a user or a film of few training rows."""
    assert isinstance(rows.loader, RankingLoader)
    data = rows.loader.data
    events = data.tables.events
    train, test = data.events_of((TRAIN,)), data.events_of((TEST,))
    users = np.bincount(events.user_row[train], minlength=data.num_users)
    fewest = np.minimum(users[events.user_row[test]], data.train_counts[events.item_row[test]])
    return fewest <= RARE


def run(config: ExperimentConfig, *, test: bool = True) -> dict[str, float]:
    """Train one model; return its figures, with those of the test rows if asked for."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = open_rows(config, World())
    started = time.process_time()
    task = ranking_task(config, rows, World())
    with tempfile.TemporaryDirectory(prefix="ssl_ranker-") as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    assert state.best_metric is not None
    figures = {
        "validation_auc": state.best_metric,
        "best_epoch": (state.best_step or 0) / task.num_steps,
        "epochs": state.epoch,
        "cpu_s": round(time.process_time() - started, 1),
    }
    if test:
        rare = rare_rows(rows)
        found = predictions(task.trained.model, rows, TEST, config.training.batch_size, World())
        figures |= {
            "auc": auc(found.logit, found.label, found.weight),
            "rare_auc": auc(found.logit[rare], found.label[rare], found.weight[rare]),
            "logloss": log_loss(found.probability, found.label, found.weight),
            "rare_share": round(float(rare.mean()), 4),
        }
    return figures


def search(
    bench: Benchmark, folder: Path, names: list[str], extra: dict[str, Any]
) -> dict[str, Any]:
    """Try grids with AutoInt and seed 0; return the validation AUC of every point."""
    figures: dict[str, Any] = {}
    fixed: dict[str, dict[str, Any]] = {
        "item": {"kind": "contrastive", "masking": "correlated", "views": "item"},
        "row": {"kind": "contrastive", "masking": "correlated", "views": "row"},
    }
    for name in names:
        for values in itertools.product(*GRID[name].values()):
            point = dict(zip(GRID[name], values, strict=True))
            if name == "none":
                tried = {
                    "training": {"id_dropout": point["id_dropout"]},
                    "embedding": {"learning_rate": point["learning_rate"]},
                }
                config = config_of("autoint", 0, folder, {}, tried)
            else:
                config = config_of("autoint", 0, folder, {**fixed[name], **point}, extra)
            found = run(config, test=False)
            label = f"{name} " + ", ".join(f"{key} {value}" for key, value in point.items())
            figures[label] = found
            bench.row(
                label,
                f"validation AUC {found['validation_auc']:.4f}, epoch {found['best_epoch']:.0f}, "
                f"{found['cpu_s']:.0f} CPU s",
            )
    return figures


def compare(
    bench: Benchmark, folder: Path, given: dict[str, str], extra: dict[str, Any]
) -> dict[str, Any]:
    """Train every model with every method and seed; differences are to `none`, seed by seed."""
    names = given.get("models", "autoint" if bench.quick else "autoint,dcn").split(",")
    seeds = range(1 if bench.quick else int(given.get("seeds", 3)))
    figures: dict[str, Any] = {"seeds": list(seeds)}
    workers = bench.workers(int(given.get("workers", 1)))
    started = {
        (name, method, seed): workers.submit(run, config_of(name, seed, folder, settings, extra))
        for name, (method, settings), seed in itertools.product(names, METHODS.items(), seeds)
    }
    for name in names:
        plain: list[dict[str, float]] = []
        for method in METHODS:
            runs = [started[name, method, seed].result() for seed in seeds]
            plain = plain or runs
            point: dict[str, Any] = {"runs": runs}
            for key in ("auc", "rare_auc", "logloss"):
                mean, deviation = mean_and_deviation([one[key] for one in runs])
                gains = [one[key] - other[key] for one, other in zip(runs, plain, strict=True)]
                point |= {key: round(mean, 5), f"{key}_deviation": round(deviation, 5)}
                point[f"{key}_gain"] = round(statistics.fmean(gains), 5)
            figures.setdefault(name, {})[method] = point
            bench.row(
                f"{name} {method}",
                f"AUC {point['auc']:.4f} +- {point['auc_deviation']:.4f} "
                f"({point['auc_gain']:+.4f}), rare {point['rare_auc']:.4f} +- "
                f"{point['rare_auc_deviation']:.4f} ({point['rare_auc_gain']:+.4f}), log loss "
                f"{point['logloss']:.4f}, {sum(one['cpu_s'] for one in runs):.0f} CPU s",
            )
    workers.shutdown()
    return {**figures, "training": TRAINING}


def main() -> None:
    bench = Benchmark("ssl_ranker", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    loaned("ml-1m")
    keep_freed_memory()
    extra = nested(given)
    if bench.quick:
        extra.setdefault("training", {}).setdefault("epochs", 1)
    with tempfile.TemporaryDirectory(prefix="ssl_ranker-") as temporary:
        write_rows(Path(temporary))
        if "search" in given:
            names = given["search"].split(",")
            figures = {"search": search(bench, Path(temporary), names, extra)}
        else:
            figures = {**compare(bench, Path(temporary), given, extra), "chosen": CHOSEN}
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
