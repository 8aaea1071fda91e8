"""Pipelines beside each of their sources and the plain models, on the same queries.

    --set data=world,ml1m    some of the data sets: world (built in), world_dcn (the same, its
                             candidates ranked by a network), ml1m, beauty, sports, gowalla, shop
    --set seeds=3            seeds of the sources that learn (default 1)
    --set model.rank=gbdt    any key of the pipeline's configuration, under a name of its own

Of each data set all rows count, leave one out (the built-in world and the shop: a later stretch of
time). The shop is made by its generator and read from CSV, as `init` proposes.
Sources are a model that learns, a chain of several steps, and linear or neighbour models.
`gain_over_best_part` is the difference in NDCG@10 to the best of them and of the plain models,
paired, with its interval.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark
from _loaned import loaned

from recsys.core.strict_yaml import read_yaml
from recsys.features.propose.tables import infer
from recsys.features.world.world import RetailWorld
from recsys.metrics.intervals import paired_difference
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.evaluation.results import WITHOUT_RANKER, WITHOUT_RULES, Evaluation
from recsys.training.families.load import config_of
from recsys.training.families.overrides import override_key
from recsys.training.jobs.train import train

HERE = Path(__file__).parent
METRIC = "ndcg_at_10"
Raw = dict[str, Any]
LINEAR: Raw = {"model": {"kind": "ease"}, "take": 200, "name": "linear"}
NEIGHBOURS: Raw = {"model": {"kind": "item_knn"}, "take": 200, "name": "neighbours"}
OF_SEQUENCES: list[Raw] = [
    {"model": {"kind": "markov"}, "sessions": {}, "take": 200},
    {"model": {"kind": "v_sknn"}, "sessions": {}, "take": 200},
    NEIGHBOURS,
]
VISITS: Raw = {"inactivity_minutes": 30}
OF_SHOP: list[Raw] = [
    {"model": {"kind": "markov"}, "sessions": VISITS, "take": 200},
    LINEAR,
    NEIGHBOURS,
]


def two_tower(raw: Raw) -> Raw:
    """Return the two-tower as `init` writes it as a source."""
    return {
        "model": {"kind": "two_tower"},
        "embedding": raw["embedding"],
        "training": {"metric": METRIC},
        "take": 200,
    }


def without_sources(raw: Raw) -> Raw:
    """Return the sections of `init`'s file that a pipeline has, too."""
    return {name: raw[name] for name in ("data", "schema", "split", "policies") if name in raw}


def session_source(name: str) -> Raw:
    """Return the model of sessions of a benchmark as a source, without what its tests chose."""
    raw = yaml.safe_load((HERE / f"{name}.yaml").read_text())
    return {
        "model": raw["model"],
        "training": raw["training"],
        "embedding": raw["embedding"],
        "sessions": {},
        "take": 200,
        "name": "transformer",
    }


def of_sessions(name: str, folder: str) -> Raw:
    """Return the pipeline on the data of a benchmark of sessions."""
    raw = yaml.safe_load((HERE / f"{name}.yaml").read_text())
    rows = loaned(folder)
    data = {key: str(rows / Path(path).name) for key, path in raw["data"].items()}
    sources = [session_source(name), *OF_SEQUENCES]
    return {"data": data, "schema": raw["schema"], "split": raw["split"], "sources": sources}


def of_places() -> Raw:
    """Return the pipeline on Gowalla: a graph filter and the two-tower of its benchmark."""
    raw = yaml.safe_load((HERE / "gowalla.yaml").read_text())
    rows = str(loaned("gowalla") / "interactions.parquet")
    tower = {name: raw[name] for name in ("model", "training", "embedding")} | {"take": 300}
    graph: Raw = {"model": {"kind": "cheby_cf"}, "take": 300, "name": "graph"}
    split = {"schema": raw["schema"], "split": raw["split"]}
    return {"data": {"interactions": rows}, **split, "sources": [graph, tower]}


def of_films() -> Raw:
    """Return the pipeline on MovieLens-1M, as `init` reads it: all ratings."""
    folder = loaned("ml-1m")
    names = ("ratings.parquet", "movies.parquet", "users.parquet")
    raw = read_yaml(infer([folder / name for name in names]).yaml, source="ml-1m")
    return without_sources(raw) | {"sources": [LINEAR, *OF_SEQUENCES]}


def of_world(folder: Path, small: bool, **sizes: int) -> Raw:
    """Return the pipeline on the built-in world, its two-tower as `init` writes it."""
    sizes = {"users": 150, "items": 80, "events": 3000} if small else sizes
    found = RetailWorld.create(0, **sizes).write(folder / "world")
    paths = [found.interactions, found.items, found.users]
    raw = read_yaml(infer(paths).yaml, source="world")
    graph: Raw = {"model": {"kind": "gf_cf"}, "take": 200, "name": "graph"}
    return without_sources(raw) | {"sources": [two_tower(raw), LINEAR, NEIGHBOURS, graph]}


def of_shop(folder: Path) -> Raw:
    """Return the pipeline on the views, carts and purchases of a shop, as `init` reads them.

    Its trees read which attributes of an item the history has.
    One key by hand: sources of sessions cut by a pause, and so not by the column of sessions.
    """
    made = folder / "shop"
    make = [sys.executable, str(loaned("shop") / "make_shop.py"), str(made)]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    names = ("events.csv", "orders.csv", "products.csv", "customers.csv")
    raw = read_yaml(infer([made / name for name in names]).yaml, source="shop")
    del raw["schema"]["interactions"]["session"]
    return without_sources(raw) | {"sources": [two_tower(raw), *OF_SHOP], "rank": "gbdt"}


def keys_of(raw: Raw, folder: Path, seed: int, overrides: tuple[str, ...]) -> Raw:
    """Return the whole configuration."""
    own = ("sources", "rank")
    keys = {name: one for name, one in raw.items() if name not in own}
    keys |= {
        "model": {"kind": "pipeline"} | {name: raw[name] for name in own if name in raw},
        "training": {"metric": METRIC, "seed": seed},
        "evaluation": {"ks": [10, 20]},
        "tracking": {"enabled": False},
        "cache": str(folder / "cache"),
        "output": str(folder / "runs"),
    }
    for one in overrides:
        override_key(keys, one)
    return keys


def made_small(raw: Raw) -> Raw:
    """Return it with models that train in seconds."""
    sources = []
    for source in raw["sources"]:
        one = {**source, "take": 30}
        if "embedding" in one:
            small: Raw = {name: one.get(name) or {} for name in ("model", "embedding", "training")}
            for setting in (*SMALL_MODEL, *SMALL_TRAINING, "training.patience=1"):
                if not setting.startswith("evaluation"):
                    override_key(small, setting)
            one |= small
        sources.append(one)
    return raw | {"sources": sources}


def figures_of(evaluation: Evaluation) -> Raw:
    """Return the metrics of all rankers, and the gain over the best part."""
    own, *others = evaluation.results.values()
    parts = [one for one in others if one.name not in (WITHOUT_RULES, WITHOUT_RANKER)]
    best = max(parts, key=lambda one: one.metrics[METRIC])
    gain = paired_difference(own.per_query[METRIC], best.per_query[METRIC])
    names = ("hit_rate_at_10", METRIC, "recall_at_20", "ndcg_at_20")
    return {
        "gain_over_best_part": round(gain.mean, 5),
        "gain_low": round(gain.low, 5),
        "gain_high": round(gain.high, 5),
        "best_part": best.name,
        "candidates": evaluation.protocol["candidates"],
        "metrics": {
            name: {metric: round(one.metrics[metric], 5) for metric in names}
            for name, one in evaluation.results.items()
        },
    }


def main() -> None:
    benchmark = Benchmark("pipeline", __doc__ or "")
    keep_freed_memory()
    given = dict(one.split("=", 1) for one in benchmark.overrides if "." not in one.split("=")[0])
    overrides = tuple(one for one in benchmark.overrides if "." in one.split("=")[0])
    usual = "world" if benchmark.smoke else "world,ml1m" if benchmark.quick else None
    names = given.get("data", usual or "world,ml1m,beauty,sports,gowalla,shop").split(",")
    seeds = int(given.get("seeds", 1))
    figures: Raw = benchmark.kept() if given.get("add") else {}
    for name in names:
        runs = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory(prefix="pipeline-") as place:
                folder = Path(place)
                raw = {
                    "world": lambda folder=folder: of_world(folder, benchmark.smoke),
                    "world_dcn": lambda folder=folder: (
                        of_world(folder, benchmark.smoke) | {"rank": "dcn"}
                    ),
                    "ml1m": of_films,
                    "beauty": lambda: of_sessions("session_beauty", "amazon-beauty"),
                    "sports": lambda: of_sessions("session_sports", "amazon-sports"),
                    "gowalla": of_places,
                    "shop": lambda folder=folder: of_shop(folder),
                }[name]()
                if benchmark.smoke:
                    raw = made_small(raw)
                start = time.process_time()
                keys = keys_of(raw, folder, seed, overrides)
                result = train(config_of(keys, source=name, folder=folder))
                assert result is not None
                assert isinstance(result.evaluation, Evaluation)
                found = figures_of(result.evaluation)
                found["cpu_s"] = round(time.process_time() - start)
            runs.append(found)
            for ranker, metrics in found["metrics"].items():
                cells = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
                benchmark.row(f"{name}, seed {seed}: {ranker}", cells)
            benchmark.row(
                f"{name}, seed {seed}: gain over {found['best_part']}",
                f"{found['gain_over_best_part']:+.4f} [{found['gain_low']:+.4f}, "
                f"{found['gain_high']:+.4f}], {found['cpu_s']} CPU s",
            )
        mean = sum(run["gain_over_best_part"] for run in runs) / len(runs)
        figures[", ".join([name, *overrides])] = {
            "gain_over_best_part": round(mean, 5),
            "gain_low": min(run["gain_low"] for run in runs),
            "runs": runs,
        }
        benchmark.keep(figures)
    benchmark.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
