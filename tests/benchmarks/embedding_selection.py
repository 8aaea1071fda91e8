"""What `recsys tune embedding` is worth: AUC on MovieLens-1M of three plans at equal lookups.

The study (DNIS, Cheng et al. 2020, https://arxiv.org/abs/2006.04466) sees training and validation
rows alone and says how many lookups each feature gets. Its plan is then trained beside two that
need no search, shared out evenly and by cardinality (`multiplicity: auto`), all with the same
table, optimizer, batches and number of epochs; of each training the epoch with the best validation
AUC counts, and what is compared is the AUC on the test rows, which no choice has seen. Differences
are paired by seed: study, initial weights and order of the rows change with it.

Data: the split of the AutoInt authors joined with users and movies, eight fields. The table has a
share of the floats that a row a value would need. --set seeds=3, epochs=4, lookups=16, dim=8,
percent=10, max_lookups=4 are what they are unless given. Needs the data on loan (RECSYS_DATA).
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow.parquet as pq
import torch
import yaml
from _harness import Benchmark, peak_memory_mib
from _loaned import loaned
from embedding_methods.datasets import read_joined
from embedding_pareto import interval

from recsys.features.dataset.split import TEST
from recsys.metrics.classification import auc, log_loss
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.embedding.study import SEARCHED, Study, study, with_lookups
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import ALONE
from recsys.training.families.load import load_config
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.task import predictions, ranking_task

Figures = dict[str, Any]
COLLISIONLESS_FLOATS = 212_144
"""A row of 16 for each value of the training rows and one for all others (`embedding_pareto`)."""
FEATURES = {
    "user_id": "users",
    "movie_id": "items",
    "year": "interactions",
    "gender": "interactions",
    "age": "interactions",
    "occupation": "interactions",
    "zip_code": "interactions",
}
GENRES = {"name": "genres", "table": "interactions", "kind": "multi_categorical", "separator": "|"}
DEFAULTS = {
    "seeds": 3,
    "epochs": 4,
    "lookups": 16,
    "max_lookups": 4,
    "dim": 8,
    "percent": 10,
    "batch_size": 4096,
}


def configured(folder: Path, options: dict[str, int]) -> ExperimentConfig:
    """Return the experiment; its table lies in `folder`, outside the project."""
    pq.write_table(read_joined(), folder / "joined.parquet")
    single = [
        {"name": name, "table": table, "kind": "categorical"} for name, table in FEATURES.items()
    ]
    roles = {"user": "user_id", "item": "movie_id", "label": {"column": "label"}}
    floats = COLLISIONLESS_FLOATS * options["percent"] // 100
    training = {"batch_size": options["batch_size"], "learning_rate": 0.002, "id_dropout": 0.0}
    whole = {
        "data": {"interactions": "joined.parquet"},
        "schema": {"interactions": roles, "features": [*single, GENRES]},
        "split": {"kind": "column", "column": "split"},
        "model": {"kind": "dcn"},
        "embedding": {
            "num_rows": floats // options["dim"],
            "dim": options["dim"],
            "weight_decay": 0.01,  # of Adam, which rankers have
        },
        "training": {**training, "precision": "float32", "epochs": options["epochs"]},
        "cache": str(folder / "cache"),
    }
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(whole))
    return load_config(path)


def seeded(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    """Return the experiment with another seed and no early stop."""
    changes = {"seed": seed, "patience": config.training.epochs}
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def trained(config: ExperimentConfig, rows: RankingRows, plan: dict[str, int]) -> Figures:
    """Train one plan; return how its best epoch does on the test rows."""
    started = time.process_time()
    task = ranking_task(config, with_lookups(rows, plan), ALONE)
    with tempfile.TemporaryDirectory() as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    found = predictions(task.trained.model, rows, TEST, config.training.batch_size, ALONE)
    return {
        "validation_auc": state.best_metric,
        "test_auc": auc(found.logit, found.label, found.weight),
        "test_log_loss": log_loss(found.probability, found.label, found.weight),
        "best_epoch": (state.best_step or 0) // task.num_steps,
        "cpu_s": round(time.process_time() - started, 1),
    }


def one_seed(
    bench: Benchmark, config: ExperimentConfig, rows: RankingRows, options: dict[str, int]
) -> Figures:
    """Search with one seed, and train every plan with it."""
    started = time.process_time()
    found: Study = study(
        config,
        lookups=options["lookups"],
        epochs=config.training.epochs,
        max_lookups=options["max_lookups"],
    )
    cpu_s = round(time.process_time() - started, 1)
    seed = config.training.seed
    bench.row(f"seed {seed}: study", f"{cpu_s} CPU s; {found.verdict()}")
    plans: dict[str, Figures] = {}
    for name, trial in found.trials.items():
        same = next((done for done in plans.values() if done["plan"] == trial.plan), None)
        plans[name] = same or {"plan": trial.plan, **trained(config, rows, trial.plan)}
        bench.row(
            f"seed {seed}: {name}",
            f"test AUC {plans[name]['test_auc']:.5f}, log loss "
            f"{plans[name]['test_log_loss']:.5f}  {list(trial.plan.values())}",
        )
    return {"seed": seed, "study_cpu_s": cpu_s, "recommended": found.best, "plans": plans}


def summary(runs: list[Figures]) -> Figures:
    """Return, by plan, means over the seeds, and the searched plan's gain paired by seed."""
    names = list(runs[0]["plans"])
    aucs = {name: [run["plans"][name]["test_auc"] for run in runs] for name in names}
    figures: Figures = {
        "auc": {name: round(statistics.fmean(values), 5) for name, values in aucs.items()},
        "log_loss": {
            name: round(statistics.fmean(run["plans"][name]["test_log_loss"] for run in runs), 5)
            for name in names
        },
        "gain_over": {},
    }
    for name in names:
        if name == SEARCHED:
            continue
        pairs = zip(aucs[SEARCHED], aucs[name], strict=True)
        mean, half = interval([own - other for own, other in pairs])
        width = round(half, 5) if len(runs) > 1 else None  # one seed says nothing of the spread
        figures["gain_over"][name] = {"auc": round(mean, 5), "half_width": width}
    return figures


def main() -> None:
    bench = Benchmark("embedding_selection", __doc__ or "")
    quick = {"seeds": 1, "epochs": 1, "batch_size": bench.sized(0, 16_384, 256)}
    given = {key: int(one) for key, one in (pair.split("=", 1) for pair in bench.overrides)}
    options = {**DEFAULTS, **(quick if bench.quick else {}), **given}
    loaned("ml-1m")
    torch.set_num_threads(1)
    keep_freed_memory()
    runs: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        base = configured(Path(folder), options)
        for seed in range(options["seeds"]):
            config = seeded(base, seed)
            runs.append(one_seed(bench, config, open_rows(config, ALONE), options))
    figures = summary(runs)
    for name, gain in figures["gain_over"].items():
        spread = "one seed" if gain["half_width"] is None else f"+- {gain['half_width']:.5f}"
        bench.row(f"searched over {name}", f"AUC {gain['auc']:+.5f} ({spread})")
    table = {"num_rows": base.embedding.num_rows, "dim": base.embedding.dim}
    bench.finish(
        {
            **figures,
            "runs": runs,
            **options,
            **table,
            "threads": 1,
            "peak_memory_mib": peak_memory_mib(),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
