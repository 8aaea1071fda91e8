"""Does smoothing over who took what pay, and still where items have features?

The two-tower with `model.smoothing` off and with one round (LightGCN's propagation over the
training rows, https://arxiv.org/abs/2002.02126), on ids only, on the tables' features only, and on
both. MovieLens-1M (ratings of at least 4) and Amazon Sports, leave one out, the whole catalogue
ranked without what a user has seen. Users are examples and every item is a negative in all runs,
which differ in nothing else; validation stops each.

Head, torso and tail hold a third of the training rows each; cold items have none. Gains are to the
same features without smoothing, of each query's mean over the seeds, with 95 % bootstrap intervals
over the queries.

    --set data=sports            one of the data sets (default ml1m,sports)
    --set seeds=2                more seeds (default 1)
    --set training.epochs=4      any key of the configuration, for all runs

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import yaml
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, peak_memory_mib
from _loaned import loaned
from numpy.typing import NDArray
from torch import Tensor

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.propose.tables import infer
from recsys.metrics.intervals import paired_difference
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.topk import exact_topk
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.evaluation.slices import item_slices
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.task import two_tower_task

TABLES = {
    "ml1m": ("ml-1m", "ratings", "movies", "users"),
    "sports": ("amazon-sports", "interactions", "items"),
}
BATCH = {"ml1m": 512, "sports": 2048}
K = 20
INPUTS = ("ids", "features", "ids and features")
ROUNDS = (0, 1)
OVERRIDES = (
    "split={kind: leave_one_out}",
    "training.examples=users",
    "training.positives=10",
    "training.loss=full_softmax",
    "training.epochs=30",
    "training.patience=4",
    f"training.metric=ndcg_at_{K}",
    "training.max_validation_queries=3000",
    f"evaluation.ks=[{K}]",
)


def config_of(name: str, inputs: str, folder: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    """Return the experiment as `recsys init` writes it, with ids or features or both."""
    source, *tables = TABLES[name]
    found = infer([loaned(source) / f"{table}.parquet" for table in tables])
    raw = yaml.safe_load(found.yaml.replace("# - {column: rating", "- {column: rating"))
    schema = raw["schema"]
    ids = {schema["interactions"]["user"], schema["interactions"]["item"]}
    wanted = {"ids": (True,), "features": (False,), "ids and features": (True, False)}[inputs]
    schema["features"] = [one for one in schema["features"] if (one["name"] in ids) in wanted]
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(raw))
    return load_config(path, (*OVERRIDES, f"training.batch_size={BATCH[name]}", *overrides))


def with_rounds(config: ExperimentConfig, rounds: int, seed: int) -> ExperimentConfig:
    smoothing = config.model.smoothing.model_copy(update={"rounds": rounds})
    model = config.model.model_copy(update={"smoothing": smoothing})
    training = config.training.model_copy(update={"seed": seed})
    return config.model_copy(update={"model": model, "training": training})


class Evaluator:
    """The queries of a data set, and which of them ask for what."""

    def __init__(self, config: ExperimentConfig, data: Dataset) -> None:
        self.data, self.length = data, config.model.history_length
        self.validation = self._queries(VALIDATION, config.training.max_validation_queries)
        self.test = self._queries(TEST, data.num_users)
        asked = self.test.relevant.values.numpy()
        assert len(asked) == len(self.test)  # one item a user
        self.members = {"all": np.ones(len(asked), bool)}
        for part, inside in item_slices(data.train_counts).items():
            self.members[part.removeprefix("items: ")] = inside[asked]

    def _queries(self, part: int, limit: int) -> Queries:
        return build_queries(
            self.data, part, history_length=self.length, filter_seen=True, limit=limit, seed=0
        )

    def metrics(self, model: TwoTower) -> dict[str, NDArray[np.float64]]:
        """Return recall@20 and NDCG@20 of each test query."""
        items = catalogue_vectors(model, self.data.items)
        vectors = query_vectors(model, self.test.block, items, self.test.history)
        top: Tensor = exact_topk(vectors, items, K, self.test.seen)[1]
        found = ranking_metrics(top, self.test.relevant, (K,))
        return {name: found[f"{name}_at_{K}"] for name in ("recall", "ndcg")}


def train(config: ExperimentConfig, evaluator: Evaluator) -> tuple[TwoTower, dict[str, Any]]:
    """Train one model; return it as it was best, and what it took."""
    started = time.process_time()
    task = two_tower_task(config, evaluator.data, evaluator.validation, World())
    with tempfile.TemporaryDirectory(prefix="graph_features-") as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    assert isinstance(task.trained.model, TwoTower)
    return task.trained.model, {
        "validation_ndcg": round(state.best_metric or 0.0, 5),
        "best_epoch": (state.best_step or 0) // task.num_steps,
        "epochs": state.global_step // task.num_steps,
        "cpu_s": round(time.process_time() - started, 1),
    }


def compare(
    bench: Benchmark, label: str, config: ExperimentConfig, evaluator: Evaluator, seeds: int
) -> dict[str, Any]:
    """Return the figures without and with smoothing, on the same features."""
    figures: dict[str, Any] = {}
    plain: dict[str, NDArray[np.float64]] = {}
    for rounds in ROUNDS:
        runs, found = [], []
        for seed in range(seeds):
            model, facts = train(with_rounds(config, rounds, seed), evaluator)
            runs.append(facts)
            found.append(evaluator.metrics(model))
        mean = {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}
        plain = plain or mean
        own: dict[str, Any] = {"runs": runs}
        for part, inside in evaluator.members.items():
            if not inside.any():
                continue
            own[part] = {
                name: round(float(values[inside].mean()), 5) for name, values in mean.items()
            }
            if rounds:
                gain = paired_difference(mean["recall"][inside], plain["recall"][inside])
                own[part] |= {
                    "gain": round(gain.mean, 5),
                    "gain_interval": [round(gain.low, 5), round(gain.high, 5)],
                }
        words = "1 round" if rounds else "off"
        figures[words] = own
        shown = {part: values for part, values in own.items() if part != "runs"}
        bench.row(f"{label}, smoothing {words}", f"{shown}, {runs}")
    return figures


def main() -> None:
    bench = Benchmark("graph_features", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    names = given.pop("data", bench.sized("ml1m,sports", "ml1m,sports", "sports")).split(",")
    seeds = int(given.pop("seeds", "1"))
    rest = tuple(f"{key}={value}" for key, value in given.items())
    if bench.quick:
        small = (*SMALL_MODEL, *SMALL_TRAINING) if bench.smoke else ()
        rest = (*small, "training.epochs=1", *rest)
    torch.set_num_threads(1)
    keep_freed_memory()
    figures: dict[str, Any] = {}
    for name in names:
        figures[name] = {}
        for inputs in INPUTS:
            with tempfile.TemporaryDirectory(prefix="graph_features-") as folder:
                config = config_of(name, inputs, Path(folder), rest)
                data = load_data(config)
            evaluator = Evaluator(config, data)
            figures[name][inputs] = compare(bench, f"{name}, {inputs}", config, evaluator, seeds)
        figures[name] |= {
            "items": data.num_items,
            "users": data.num_users,
            "training_rows": len(data.events_of((TRAIN,))),
            "test_queries": {part: int(one.sum()) for part, one in evaluator.members.items()},
            "training": config.training.model_dump(mode="json"),
        }
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
