"""Self-supervised regularisation of the two-tower: recall@20 overall, by slice, and on cold items.

MovieLens-1M (ratings of at least 4) and Amazon Sports, ids and all metadata of their tables as
`recsys init` declares them, leave one out, the whole catalogue ranked. 5 % of the items are held
out as cold: their training rows are removed, and they stay in catalogue and test. Compared are
no self-supervision; the losses of Yao et al. (https://arxiv.org/abs/2007.12865) on the item tower
with random (RFM) and correlated masking (CFM); feature dropout alone; and spread-out. Weight and
temperature are those of the best validation recall@20 of seed 0: a grid for CFM, whose point is
also RFM's and feature dropout's, and one for spread-out.

Head, torso and tail hold a third of the training rows each. Differences to `none` are of each
query's mean over the seeds, with 95 % bootstrap intervals over the queries. `among cold`: cold
test items ranked among the cold items alone. Beside the towers stands a ranker by category: an
item scores the user's count of each of its categories times the category's training rows.

    --set data=sports            one of the data sets (default sports,ml1m)
    --set seeds=1                fewer seeds (default 3)
    --set cost=true              CPU time of a step with each loss beside none, and nothing else
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
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, peak_memory_mib
from _loaned import loaned
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged, PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.propose.tables import infer
from recsys.metrics.intervals import paired_difference
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.topk import exact_topk, topk_of_scores
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.slices import item_slices
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.task import two_tower_task

K = 20
COLD_SHARE = 0.05
CATEGORY = {"ml1m": "genres", "sports": "categories"}
OF_DATA = {
    "sports": ("training.batch_size=2048", "training.epochs=6"),
    "ml1m": ("training.batch_size=4096", "training.epochs=4"),
}
OVERRIDES = (
    "training.patience=2",
    f"training.metric=recall_at_{K}",
    "training.max_validation_queries=6000",
    f"evaluation.ks=[{K}]",
)
CONTRASTIVE: dict[str, Any] = {"kind": "contrastive", "views": "item"}
METHODS: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "feature dropout": {**CONTRASTIVE, "masking": "none", "dropout": 0.3},
    "spread-out": {"kind": "spread_out"},
    "RFM": {**CONTRASTIVE, "masking": "random"},
    "CFM": {**CONTRASTIVE, "masking": "correlated"},
}
GRID = {
    "CFM": [
        {"weight": weight, "temperature": temperature}
        for weight, temperature in itertools.product((0.05, 0.5), (0.1, 0.5))
    ],
    "spread-out": [{"weight": 0.1}, {"weight": 1.0}],
}


def write_rows(name: str, folder: Path) -> NDArray[np.int64]:
    """Write the log with its split, without the training rows of cold items; return those."""
    if name == "ml1m":
        log = pq.read_table(loaned("ml-1m") / "ratings.parquet")
        keep = (np.asarray(log["position"]) >= 0) & (np.asarray(log["rating"]) >= 4)
        log = log.take(pa.array(np.flatnonzero(keep)))
        item_column = "movie_id"
    else:
        log = pq.read_table(loaned("amazon-sports") / "interactions.parquet")
        item_column = "item_id"
    user, item = np.asarray(log["user_id"]), np.asarray(log[item_column])
    order = np.lexsort((np.asarray(log["position"]), user))
    log, user, item = log.take(pa.array(order)), user[order], item[order]
    last = np.append(user[1:] != user[:-1], True)
    before_last = np.append(last[1:], False) & ~last
    split = np.where(last, "test", np.where(before_last, "validation", "train"))
    items = np.unique(item)
    cold = np.random.default_rng(0).permutation(items)[: round(COLD_SHARE * len(items))]
    kept = np.flatnonzero((split != "train") | ~np.isin(item, cold))
    log = log.append_column("split", pa.array(split)).take(pa.array(kept))
    pq.write_table(log, folder / "rows.parquet")
    return cold


def config_of(name: str, folder: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    """Return the experiment as `recsys init` would write it for the rows in `folder`."""
    if name == "ml1m":
        tables = [loaned("ml-1m") / one for one in ("movies.parquet", "users.parquet")]
    else:
        tables = [loaned("amazon-sports") / "items.parquet"]
    path = folder / "recsys.yaml"
    path.write_text(infer([folder / "rows.parquet", *tables]).yaml)
    ours = ("split={kind: column, column: split}", *OF_DATA[name], *OVERRIDES)
    return load_config(path, (*ours, *overrides))


def with_method(config: ExperimentConfig, seed: int, method: dict[str, Any]) -> ExperimentConfig:
    """Return the experiment with a seed and a self-supervised loss."""
    settings = config.training.self_supervision.model_copy(update=method)
    training = config.training.model_copy(update={"seed": seed, "self_supervision": settings})
    return config.model_copy(update={"training": training})


class Evaluator:
    """The test queries of a data set, and which of them ask for what."""

    def __init__(self, name: str, config: ExperimentConfig, data: Dataset) -> None:
        self.data, self.category = data, CATEGORY[name]
        length = config.model.history_length
        self.validation = self._queries(VALIDATION, length, config.training.max_validation_queries)
        self.queries = self._queries(TEST, length, data.num_users)
        assert bool((self.queries.relevant.lengths() == 1).all())
        self.slices = item_slices(data.train_counts)
        asked = self.queries.relevant.values.numpy()
        self.members = {"all": np.ones(len(asked), bool)}
        self.members |= {one: inside[asked] for one, inside in self.slices.items()}

    def _queries(self, part: int, length: int, limit: int) -> Queries:
        return build_queries(
            self.data, part, history_length=length, filter_seen=True, limit=limit, seed=0
        )

    def hits(self, top: Tensor) -> NDArray[np.float64]:
        """Return whether each list holds what was taken, (Q,)."""
        found = (top == self.queries.relevant.values.unsqueeze(1)).any(1)
        return found.numpy().astype(np.float64)

    def of_towers(self, model: TwoTower) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the hits in the whole catalogue and among the cold items."""
        items = catalogue_vectors(model, self.data.items)
        vectors = query_vectors(model, self.queries.block, items, self.queries.history)
        whole = exact_topk(vectors, items, K, self.queries.seen)[1]
        cold = torch.from_numpy(np.flatnonzero(self.slices["items: cold"]))
        top = exact_topk(vectors, items[cold], K)[1]
        return self.hits(whole), self.hits(cold[top])

    def of_categories(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the hits of the ranker by category, as `of_towers`."""
        layout = self.data.encoder.layout("items")
        place = [feature for feature, _ in layout.multi].index(self.category)
        item_categories = incidence(self.data.items.multi[place])
        popularity = item_categories.T @ self.data.train_counts.astype(np.float32)
        cold = self.slices["items: cold"]
        whole, among = [], []
        for rows in torch.arange(len(self.queries)).split(1024):
            seen = self.queries.seen.take(rows)
            owner = np.repeat(np.arange(len(rows)), seen.lengths().numpy())
            counts = np.zeros((len(rows), item_categories.shape[1]), np.float32)
            np.add.at(counts, owner, item_categories[seen.values.numpy()])
            scores = torch.from_numpy((counts * popularity) @ item_categories.T)
            whole.append(topk_of_scores(scores, K, seen)[1])
            scores[:, torch.from_numpy(~cold)] = -torch.inf
            among.append(topk_of_scores(scores, K)[1])
        return self.hits(torch.cat(whole)), self.hits(torch.cat(among))


def incidence(values: Jagged) -> NDArray[np.float32]:
    """Return which row has which value, (N, distinct values)."""
    known, code = np.unique(values.values.numpy(), return_inverse=True)
    matrix = np.zeros((len(values), len(known)), np.float32)
    matrix[np.repeat(np.arange(len(values)), values.lengths().numpy()), code] = 1
    return matrix


def train(config: ExperimentConfig, evaluator: Evaluator) -> tuple[TwoTower, dict[str, float]]:
    """Train one model; return it as it was best, and its figures on the validation rows."""
    started = time.process_time()
    task = two_tower_task(config, evaluator.data, evaluator.validation, World())
    with tempfile.TemporaryDirectory(prefix="ssl_tail-") as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    assert isinstance(task.trained.model, TwoTower)
    assert state.best_metric is not None
    return task.trained.model, {
        "validation": round(state.best_metric, 5),
        "best_epoch": (state.best_step or 0) // task.num_steps,
        "cpu_s": round(time.process_time() - started, 1),
    }


def search(
    bench: Benchmark, name: str, config: ExperimentConfig, evaluator: Evaluator
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the best point of each grid on the validation rows, and what each point gave."""
    best: dict[str, dict[str, Any]] = {}
    figures: dict[str, Any] = {}
    for method, points in GRID.items():
        tried = []
        for point in points[:1] if bench.quick else points:
            found = train(with_method(config, 0, {**METHODS[method], **point}), evaluator)[1]
            label = f"{method} " + ", ".join(f"{key} {value}" for key, value in point.items())
            figures[label] = found
            tried.append((found["validation"], point))
            bench.row(
                f"{name} {label}",
                f"validation {found['validation']:.4f}, epoch {found['best_epoch']}, "
                f"{found['cpu_s']:.0f} CPU s",
            )
        best[method] = max(tried, key=lambda pair: pair[0])[1]
    return best, figures


def compare(
    bench: Benchmark,
    name: str,
    config: ExperimentConfig,
    evaluator: Evaluator,
    chosen: dict[str, dict[str, Any]],
    num_seeds: int,
) -> dict[str, Any]:
    """Train every method with every seed; differences are to `none`."""
    members, figures = evaluator.members, {}
    cold = members["items: cold"]
    plain: dict[str, NDArray[np.float64]] = {}
    for method, settings in METHODS.items():
        point = {} if method == "none" else chosen["spread-out" if "spread" in method else "CFM"]
        hits, runs = [], []
        for seed in range(num_seeds):
            model, found = train(with_method(config, seed, {**settings, **point}), evaluator)
            hits.append(evaluator.of_towers(model))
            runs.append(found)
        whole, among = (np.mean(both, axis=0) for both in zip(*hits, strict=True))
        parts = {part: whole[inside] for part, inside in members.items()}
        parts["among cold"] = among[cold]
        plain = plain or parts
        own: dict[str, Any] = {"runs": runs, "settings": {**settings, **point}}
        for part, values in parts.items():
            difference = paired_difference(values, plain[part])
            own[part] = {
                "recall": round(float(values.mean()), 5),
                "queries": len(values),
                "gain": round(difference.mean, 5),
                "gain_interval": [round(difference.low, 5), round(difference.high, 5)],
            }
        own["by_seed"] = [round(float(one.mean()), 5) for one, _ in hits]
        figures[method] = own
        bench.row(f"{name} {method}", words_of(own, list(parts)))
    whole, among = evaluator.of_categories()
    by_category = {part: round(float(whole[inside].mean()), 5) for part, inside in members.items()}
    figures["by category"] = {**by_category, "among cold": round(float(among[cold].mean()), 5)}
    bench.row(f"{name} by category", str(figures["by category"]))
    return figures


def words_of(figures: dict[str, Any], parts: list[str]) -> str:
    """Return one line: recall and gain with its interval, part by part."""
    words = []
    for part in parts:
        one = figures[part]
        low, high = one["gain_interval"]
        words.append(
            f"{part.removeprefix('items: ')} {one['recall']:.4f} ({one['gain']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}])"
        )
    seconds = sum(run["cpu_s"] for run in figures["runs"])
    return ", ".join(words) + f", {seconds:.0f} CPU s"


def cost(
    bench: Benchmark, name: str, config: ExperimentConfig, evaluator: Evaluator
) -> dict[str, Any]:
    """Return the CPU time of a step with each loss, measured in turn on the same batches."""
    blocks, block_steps = (3, 4) if bench.quick else (8, 6)
    tasks = [
        two_tower_task(
            with_method(config, 0, method), evaluator.data, evaluator.validation, World()
        )
        for method in METHODS.values()
    ]
    times: list[list[float]] = []
    for block in range(blocks + 1):
        source = tasks[0].batches(0, block * block_steps)
        batches = list(itertools.islice(source, block_steps))
        source.close()  # type: ignore[attr-defined]  # its thread's time is not a step's
        row = [0.0] * len(tasks)
        for place in range(len(tasks)):  # another one is first in every block
            number = (place + block) % len(tasks)
            row[number] = step_ms(tasks[number], batches)
        if block:  # the first block warms up
            times.append(row)
    middle = [statistics.median(column) for column in zip(*times, strict=True)]
    figures = {}
    for method, own in zip(METHODS, middle, strict=True):
        figures[method] = {"step_ms": round(own, 1), "times_none": round(own / middle[0], 3)}
        bench.row(f"{name} {method}", f"{own:.1f} CPU ms a step, {own / middle[0]:.2f} x none")
    return {**figures, "batch_size": config.training.batch_size}


def step_ms(task: Task[PairBatch], batches: list[PairBatch]) -> float:
    """Return the CPU time of a training step on each batch, in milliseconds."""
    started = time.process_time()
    for batch in batches:
        task.trained.optimizer.zero_grad(set_to_none=True)
        task.loss(batch).backward()
        task.trained.optimizer.step()
    return (time.process_time() - started) * 1000 / len(batches)


def facts_of(evaluator: Evaluator) -> dict[str, Any]:
    """Return how large the data set is and how its slices are filled."""
    counts = {part: int(inside.sum()) for part, inside in evaluator.slices.items()}
    return {
        "items": evaluator.data.num_items,
        "users": evaluator.data.num_users,
        "training_rows": len(evaluator.data.events_of((TRAIN,))),
        "test_queries": len(evaluator.queries),
        "items_by_slice": counts,
    }


def main() -> None:
    bench = Benchmark("ssl_tail", __doc__ or "")
    both = "sports,ml1m"
    own = {
        "data": bench.sized(both, both, "sports"),
        "seeds": "1" if bench.quick else "3",
        "cost": "false",
    }
    given = dict(override.split("=", 1) for override in bench.overrides)
    own |= {key: given.pop(key) for key in list(given) if key in own}
    rest = tuple(f"{key}={value}" for key, value in given.items())
    if bench.quick:
        small = (*SMALL_MODEL, *SMALL_TRAINING) if bench.smoke else ()
        rest = (*small, "training.epochs=1", *rest)
    torch.set_num_threads(1)
    keep_freed_memory()
    figures: dict[str, Any] = {}
    for name in own["data"].split(","):
        with tempfile.TemporaryDirectory(prefix="ssl_tail-") as temporary:
            write_rows(name, Path(temporary))
            config = config_of(name, Path(temporary), rest)
            data = load_data(config)
        evaluator = Evaluator(name, config, data)
        figures[name] = facts_of(evaluator)
        bench.row(name, str(figures[name]))
        if own["cost"] == "true":
            figures[name]["cost"] = cost(bench, name, config, evaluator)
            continue
        chosen, figures[name]["search"] = search(bench, name, config, evaluator)
        found = compare(bench, name, config, evaluator, chosen, int(own["seeds"]))
        figures[name] |= {"methods": found, "training": config.training.model_dump(mode="json")}
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
