"""AutoInt and its baselines on MovieLens-1M: AUC and log loss on the AutoInt authors' test rows.

The authors' own split (a rating of 3 dropped, above is 1; 591,209 / 73,901 / 73,902 rows), two
settings: (a) gender, age, occupation, zip code, genres, year; (b) user and film ids as well. The
paper's setting is (a) with a timestamp, which the data at hand do not have. A third setting, `new`,
has the fields of (b) and other parts: no user of the validation and test rows, the newest two
tenths of the users, has a training row (the later a user came, the lower the number).

Every model goes through the engine's own rows, loop and evaluation; of each run the epoch with the
best validation AUC counts, and what is chosen (`CHOSEN`) was chosen on the validation rows.
LightGBM reads the same rows, their columns as native categories (of the genres one).

    --set models=autoint,dcn     some of the models
    --set seeds=1                fewer seeds (default 3)
    --set settings=b             one of the settings (a, b, new)
    --set training.epochs=4      any key of the configuration, for all models
    --set add=true               beside the figures that are saved already
    --set trees=no               without LightGBM
    --set workers=2              so many runs at a time, a thread each

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _harness import Benchmark
from _loaned import loaned
from _ranker_runs import averaged, trained, trees_on
from embedding_methods.datasets import read_joined

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import RankingRows, open_rows

ATTRIBUTES = ("gender", "age", "occupation", "zip_code", "year")
DEEP = {"hidden": [400, 400], "dropout": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "logistic": {"kind": "logistic"},
    "fm": {"kind": "fm"},
    "mlp": {"kind": "mlp", **DEEP},
    "dcn": {"kind": "dcn", **DEEP},
    "autoint": {"kind": "autoint"},
    "autoint+": {"kind": "autoint", **DEEP},
    "finalmlp": {"kind": "finalmlp"},
    "masknet": {"kind": "masknet"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "a": {"embedding": {"num_rows": 262_144, "dim": 16, "weight_decay": 0.01}},
    "b": {"embedding": {"num_rows": 524_288, "dim": 16, "weight_decay": 0.01}},
    "new": {
        "embedding": {"num_rows": 524_288, "dim": 16, "weight_decay": 0.01},
        "training": {"id_dropout": 0.02},
    },
}
TRAINING = {
    "batch_size": 4096,
    "epochs": 30,
    "patience": 2,
    "learning_rate": 0.002,
    "id_dropout": 0.0,
    "metric": "auc",
}
LINEAR = {"optimizer": "row_wise_adagrad", "learning_rate": 0.1, "weight_decay": 0.0}
PLAIN = {"logistic": {"embedding": LINEAR}, "fm": {"embedding": {**LINEAR, "weight_decay": 1e-5}}}
CHOSEN: dict[str, dict[str, dict[str, dict[str, Any]]]] = dict.fromkeys(SETTINGS, PLAIN)
"""What the validation rows chose for a model, beyond its setting's."""
FILE = "rows.parquet"


def features(setting: str) -> list[dict[str, Any]]:
    """Return the fields of a setting."""
    sparse = [{"name": n, "table": "interactions", "kind": "categorical"} for n in ATTRIBUTES]
    genres = {"name": "genres", "table": "interactions", "kind": "multi_categorical"}
    ids = [
        {"name": "user_id", "table": "users", "kind": "categorical"},
        {"name": "movie_id", "table": "items", "kind": "categorical"},
    ]
    return [*([] if setting == "a" else ids), *sparse, {**genres, "separator": "|"}]


def config_of(
    setting: str, model: dict[str, Any], seed: int, folder: Path, extra: dict[str, Any]
) -> ExperimentConfig:
    """Return the experiment."""
    roles = {"user": "user_id", "item": "movie_id", "label": {"column": "label"}}
    raw = {
        "data": {"interactions": str(folder / file_of(setting))},
        "policies": {"duplicate_events": "keep"},
        "schema": {"interactions": roles, "features": features(setting)},
        "split": {"kind": "column", "column": "split"},
        "model": {**model, **extra.get("model", {})},
        "embedding": {**SETTINGS[setting]["embedding"], **extra.get("embedding", {})},
        "training": {
            **TRAINING,
            **SETTINGS[setting].get("training", {}),
            **extra.get("training", {}),
            "seed": seed,
        },
    }
    return parse_config(raw, source="autoint_ml1m")


def file_of(setting: str) -> str:
    """Return the name of the file with the rows of a setting."""
    return "new_users.parquet" if setting == "new" else FILE


def of_new_users(rows: pa.Table) -> pa.Table:
    """Return the rows with parts that have no user in common, the newest users last."""
    numbers = rows["user_id"].to_numpy()
    age = np.unique(-numbers, return_inverse=True)[1] / np.unique(numbers).size
    part = np.where(age < 0.8, "train", np.where(age < 0.9, "validation", "test"))
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(part))


@cache
def rows_for(setting: str, folder: str, batch_size: int, seed: int) -> RankingRows:
    """Return the rows of a setting, read once a process."""
    extra = {"training": {"batch_size": batch_size}}
    return open_rows(config_of(setting, {"kind": "logistic"}, seed, Path(folder), extra), World())


def run(setting: str, name: str, seed: int, folder: str, extra: dict[str, Any]) -> dict[str, float]:
    """Train one model; return its figures."""
    chosen = CHOSEN[setting].get(name, {})
    merged = {
        section: {**chosen.get(section, {}), **extra.get(section, {})}
        for section in ("model", "embedding", "training")
    }
    config = config_of(setting, MODELS[name], seed, Path(folder), merged)
    return trained(config, rows_for(setting, folder, config.training.batch_size, seed)).figures()


def trees(setting: str, folder: str) -> dict[str, float]:
    """Train LightGBM on the same encoded rows."""
    config = config_of(setting, {"kind": "logistic"}, 0, Path(folder), {})
    return trees_on(config, rows_for(setting, folder, config.training.batch_size, 0)).figures()


def nested(overrides: dict[str, str]) -> dict[str, Any]:
    """Return key.sub=value pairs as a tree of numbers and words."""
    import yaml

    tree: dict[str, Any] = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if name:
            tree.setdefault(section, {})[name] = yaml.safe_load(value)
    return tree


def main() -> None:
    bench = Benchmark("autoint_ml1m", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    loaned("ml-1m")
    names = given.get("models", "logistic,autoint" if bench.quick else ",".join(MODELS)).split(",")
    settings = given.get("settings", "b" if bench.quick else "a,b,new").split(",")
    seeds = range(1 if bench.quick else int(given.get("seeds", 3)))
    extra = nested(given)
    if bench.quick:
        extra.setdefault("training", {}).setdefault("epochs", 1)
    figures: dict[str, Any] = bench.kept() if given.get("add") else {}
    made_with = {"seeds": list(seeds), "training": TRAINING, "chosen": CHOSEN}
    with tempfile.TemporaryDirectory(prefix="autoint_ml1m-") as folder:
        pq.write_table(read_joined(), Path(folder) / FILE)
        pq.write_table(of_new_users(read_joined()), Path(folder) / file_of("new"))
        workers = bench.workers(int(given.get("workers", 1)))
        started = {
            (setting, name, seed): workers.submit(run, setting, name, seed, folder, extra)
            for setting in settings
            for name in names
            for seed in seeds
        }
        for setting in settings:
            for name in names:
                runs = [started[setting, name, seed].result() for seed in seeds]
                point: dict[str, Any] = {"runs": runs, **averaged(runs)}
                figures.setdefault(setting, {})[name] = point
                bench.row(
                    f"({setting}) {name}",
                    f"AUC {point['auc']:.4f} +- {point['auc_deviation']:.4f}, log loss "
                    f"{point['logloss']:.4f}, epochs {[one['best_epoch'] for one in runs]}, "
                    f"{sum(one['cpu_s'] for one in runs):.0f} CPU s",
                )
                bench.keep({**figures, **made_with})
            if given.get("trees") == "no":
                continue
            point = trees(setting, folder)
            figures[setting]["lightgbm"] = point
            bench.row(
                f"({setting}) lightgbm",
                f"AUC {point['auc']:.4f}, log loss {point['logloss']:.4f}, "
                f"{point['cpu_s']:.0f} CPU s",
            )
        workers.shutdown()
    bench.finish({**figures, **made_with})


if __name__ == "__main__":
    sys.exit(main())
