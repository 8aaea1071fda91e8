"""Rankers on Frappe's app usage: AUC and log loss, with and without rates of pairs.

The official validation and test rows. The training negatives are drawn anew (see the data's own
notes), so other libraries have to be run on the same rows. The configuration is the one that
`recsys init` writes for the file, with another model in it; `out_of_the_box` is that file as it is.
Of each run the epoch with the best validation AUC counts. In 87 % of the positive test rows the
user had used the app before: figures of pairs seen and not seen in training are given apart.
LightGBM reads the same rows, their columns as native categories.

    --set models=mlp,dcn         some of the models (out_of_the_box among them); two have rates, too
    --set rates=no,all           which rates: none, those that `init` proposes (init), or those of
                                 item, user, item x user and of both x every other column (all)
    --set seeds=1                fewer seeds (default 3)
    --set training.epochs=4      any key of the configuration, for all models
    --set add=true               beside the figures that are saved already
    --set trees=no               without LightGBM
    --set workers=2              so many runs at a time, a thread each

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow.parquet as pq
import yaml
from _harness import Benchmark
from _loaned import loaned
from _ranker_runs import Run, averaged, figures_of, trained, trees_on
from autoint_ml1m import nested

from recsys.features.dataset.split import TEST
from recsys.features.propose.tables import infer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import RankingRows, open_rows

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
LINEAR = {"optimizer": "row_wise_adagrad", "learning_rate": 0.1, "weight_decay": 0.0}
PLAIN = {"logistic": {"embedding": LINEAR}, "fm": {"embedding": {**LINEAR, "weight_decay": 1e-5}}}
DECAYED = {"embedding": {"weight_decay": 0.1}}
CHOSEN: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "no": {
        **PLAIN,
        **dict.fromkeys(("mlp", "dcn", "autoint", "autoint+", "finalmlp", "masknet"), DECAYED),
    },
    "init": PLAIN,
    "all": PLAIN,
}
"""What the validation rows chose for a model, beyond what `init` writes."""
WITH_RATES = ("mlp", "autoint+")
"""The models that are trained with rates, too."""
OUT_OF_THE_BOX = "out_of_the_box"
RATES = ("no", "init", "all")


def config_of(
    name: str, rates: str, seed: int, path: str, extra: dict[str, Any]
) -> ExperimentConfig:
    """Return the experiment that `init` writes, with the model `name` and without rates if so."""
    raw: dict[str, Any] = yaml.safe_load(infer([Path(path)]).yaml)
    features = raw["schema"]["features"]
    if rates != "init":
        others = [one for one in features if one["kind"] != "rate"]
        raw["schema"]["features"] = [*others, *(all_rates(others) if rates == "all" else [])]
    if name != OUT_OF_THE_BOX:
        raw["model"] = MODELS[name]
    for section in ("model", "embedding", "training"):
        own = CHOSEN[rates].get(name, {}).get(section, {})
        raw[section] = {**raw[section], **own, **extra.get(section, {})}
    raw["training"]["seed"] = seed
    return parse_config(raw, source="frappe")


def all_rates(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rates of items, of users, of both, and of each with every other column."""
    others = [one["name"] for one in features if one["table"] == "interactions"]
    ids = ("item_id", "user_id")
    combinations = [ids[:1], ids[1:], ids, *((own, other) for own in ids for other in others)]
    return [
        {"name": "_".join((*of, "rate")), "kind": "rate", "of": list(of)} for of in combinations
    ]


@cache
def rows_for(rates: str, path: str, batch_size: int, seed: int) -> RankingRows:
    """Return the encoded rows, read once a process."""
    sizes = {"training": {"batch_size": batch_size}}
    return open_rows(config_of("mlp", rates, seed, path, sizes), World())  # type: ignore[arg-type]


def run(name: str, rates: str, seed: int, path: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Train one model; return its figures."""
    config = config_of(name, rates, seed, path, extra)
    rows = rows_for(rates, path, config.training.batch_size, seed)
    done = trained(config, rows)
    return {**done.figures(), **by_memory(done, rows, path)}


def by_memory(done: Run, rows: RankingRows, path: str) -> dict[str, Any]:
    """Return the figures of test rows whose pair of user and app is in training, and of others."""
    score, probability, label = done.found.logit, done.calibrated, done.found.label
    table = pq.read_table(path, columns=["user_id", "item_id", "split"]).to_pandas()
    pair = table["user_id"].astype(np.int64) * 10**6 + table["item_id"]
    # Test rows come in the order of their users, not in that of the file.
    examples = np.concatenate([one.examples for one in rows.loader.ordered(TEST, 65_536)])
    place = rows.loader.data.tables.events.row[examples]  # type: ignore[attr-defined]
    known = set(pair[table["split"] == "train"])
    of_pair = pair.isin(known).to_numpy()[place]
    return {
        name: {"rows": int(here.sum()), **figures_of(score[here], probability[here], label[here])}
        for name, here in (("seen", of_pair), ("unseen", ~of_pair))
        if len(set(label[here].tolist())) > 1
    }


def trees(rates: str, path: str) -> dict[str, Any]:
    """Train LightGBM on the same encoded rows, as the report of a ranker does."""
    config = config_of("mlp", rates, 0, path, {})
    rows = rows_for(rates, path, config.training.batch_size, 0)
    done = trees_on(config, rows)
    return {**done.figures(), **by_memory(done, rows, path)}


def headline(figures: dict[str, Any]) -> dict[str, float]:
    """Return the main figures: AutoInt+ and the best model without rates, and `init`'s own file."""
    plain = {name: one for name, one in figures.get("rates_no", {}).items() if "runs" in one}
    found = {}
    if "autoint+" in plain:
        found |= {f"autoint_plus_{key}": plain["autoint+"][key] for key in ("auc", "logloss")}
    if plain:
        found["best_auc"] = max(one["auc"] for one in plain.values())
        found["best_logloss"] = min(one["logloss"] for one in plain.values())
    if OUT_OF_THE_BOX in figures:
        found["out_of_the_box_auc"] = figures[OUT_OF_THE_BOX][OUT_OF_THE_BOX]["auc"]
    return found


def main() -> None:
    bench = Benchmark("frappe", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    path = str(loaned("frappe") / "frappe.parquet")
    default = "mlp,autoint+" if bench.quick else ",".join(MODELS)
    names = given.get("models", f"{default},{OUT_OF_THE_BOX}").split(",")
    ways = given.get("rates", ",".join(RATES)).split(",")
    seeds = range(1 if bench.quick else int(given.get("seeds", 3)))
    extra = nested(given)
    if bench.quick:
        extra.setdefault("training", {}).setdefault("epochs", 1 if bench.smoke else 3)
    if bench.smoke:
        small = {"embedding": {"num_rows": 512}, "training": {"batch_size": 256}}
        extra = {name: {**small.get(name, {}), **own} for name, own in {**small, **extra}.items()}
    workers = bench.workers(int(given.get("workers", 1)))
    jobs = [
        (name, rates, seed)
        for rates in ways
        for name in names
        if name in (MODELS if rates == "no" else WITH_RATES)
        for seed in seeds
    ]
    if OUT_OF_THE_BOX in names:
        jobs += [(OUT_OF_THE_BOX, "init", seed) for seed in seeds]
    started = {job: workers.submit(run, *job, path, extra) for job in jobs}
    figures: dict[str, Any] = bench.kept() if given.get("add") else {}
    made_with = {"seeds": list(seeds), "chosen": CHOSEN}
    for rates in () if given.get("trees") == "no" else ways:
        point = trees(rates, path)
        figures.setdefault(f"rates_{rates}", {})["lightgbm"] = point
        bench.row(
            f"rates_{rates} lightgbm",
            f"AUC {point['auc']:.4f}, log loss {point['logloss']:.4f}, {point['cpu_s']:.0f} CPU s",
        )
    for name, rates, seed in jobs:
        if seed:
            continue
        runs = [started[name, rates, seed].result() for seed in seeds]
        place = OUT_OF_THE_BOX if name == OUT_OF_THE_BOX else f"rates_{rates}"
        point = {**averaged(runs), "runs": runs}
        figures.setdefault(place, {})[name] = point
        bench.row(
            f"{place} {name}",
            f"AUC {point['auc']:.4f} +- {point['auc_deviation']:.4f}, log loss "
            f"{point['logloss']:.4f} +- {point['logloss_deviation']:.4f}, epochs "
            f"{[run['best_epoch'] for run in runs]}, {runs[0]['cpu_s']:.0f} CPU s a run",
        )
        bench.keep({**figures, **made_with})
    workers.shutdown()
    bench.finish({**figures, **headline(figures), **made_with})


if __name__ == "__main__":
    sys.exit(main())
