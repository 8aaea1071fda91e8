"""Several interests of a user: what they add, and what one encoded vector keeps of them.

MovieLens-1M (ratings of at least 4), features as `recsys init` declares them, leave one out, the
whole catalogue ranked without what a user has seen. The two-tower is trained with 1, 2, 4 and 8
interests, the same way and until validation stops it. Of the best number above one:

- several searches: every interest searches exactly, the lists are merged by score;
- one vector: fixed dimensional encodings (MUVERA, https://arxiv.org/abs/2405.19504) of several
  widths; beside them the mean of the interests, and the first interest alone.

`found` is the share of the merged list's top 20 that a search for 20 finds, `of 100` the share
within a search for 100, which scoring those by all interests would bring back; `recall` is that
on the test items; times are of exact search, CPU ms a query.

    --set counts=1,4             other numbers of interests
    --set seeds=2                more seeds (default 1)
    --set training.epochs=4      any key of the configuration, for all runs

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, alternated, peak_memory_mib
from _loaned import loaned
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.propose.tables import infer
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.interests import search
from recsys.retrieval.muvera import FixedDimensionalEncoding
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.task import two_tower_task

K, DEEP = 20, 100
WIDTHS = ((1, 4), (2, 4), (2, 8), (3, 8), (4, 8))
"""Hyperplanes and repetitions of the encodings."""
OVERRIDES = (
    "split={kind: leave_one_out}",
    "training.examples=users",
    "training.positives=10",
    "training.batch_size=512",
    "training.epochs=40",
    "training.patience=6",
    f"training.metric=ndcg_at_{K}",
    "training.max_validation_queries=3000",
    f"evaluation.ks=[{K}]",
)


class Evaluator:
    """Queries of validation and test, the same for every model."""

    def __init__(self, config: ExperimentConfig, data: Dataset) -> None:
        self.data, self.length = data, config.model.history_length
        self.validation = self._queries(VALIDATION, config.training.max_validation_queries)
        self.test = self._queries(TEST, data.num_users)

    def _queries(self, part: int, limit: int) -> Queries:
        return build_queries(
            self.data, part, history_length=self.length, filter_seen=True, limit=limit, seed=0
        )

    def vectors(self, model: TwoTower) -> tuple[Tensor, Tensor]:
        """Return the catalogue (N, E) and the test queries (Q, I, E)."""
        items = catalogue_vectors(model, self.data.items)
        queries = query_vectors(model, self.test.block, items, self.test.history)
        return items, queries if queries.ndim == 3 else queries.unsqueeze(1)

    def metrics(self, top: Tensor) -> dict[str, float]:
        """Return recall@20 and NDCG@20 of lists (Q, >= 20)."""
        found = ranking_metrics(top, self.test.relevant, (K,))
        return {
            name: round(float(found[f"{name}_at_{K}"].mean()), 5) for name in ("recall", "ndcg")
        }


def config_of(folder: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    found = infer(
        [loaned("ml-1m") / name for name in ("ratings.parquet", "movies.parquet", "users.parquet")]
    )
    path = folder / "recsys.yaml"
    path.write_text(found.yaml.replace("# - {column: rating", "- {column: rating"))
    return load_config(path, (*OVERRIDES, *overrides))


def with_interests(config: ExperimentConfig, count: int, seed: int) -> ExperimentConfig:
    model = config.model.model_copy(update={"interests": count})
    training = config.training.model_copy(update={"seed": seed})
    return config.model_copy(update={"model": model, "training": training})


def train(config: ExperimentConfig, evaluator: Evaluator) -> tuple[TwoTower, dict[str, Any]]:
    """Train one model; return it as it was best, and what it took."""
    started = time.process_time()
    task = two_tower_task(config, evaluator.data, evaluator.validation, World())
    with tempfile.TemporaryDirectory(prefix="interests-") as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    assert isinstance(task.trained.model, TwoTower)
    return task.trained.model, {
        "validation_ndcg": round(state.best_metric or 0.0, 5),
        "best_epoch": (state.best_step or 0) // task.num_steps,
        "epochs": state.global_step // task.num_steps,
        "cpu_s": round(time.process_time() - started, 1),
    }


def likeness(queries_QIE: Tensor) -> float:
    """Return the mean cosine of two interests of a user."""
    unit = F.normalize(queries_QIE, dim=2)
    interests = unit.shape[1]
    total = torch.einsum("qie,qje->qij", unit, unit).sum((1, 2)) - interests
    return float((total / (interests * (interests - 1))).mean())


def share_found(wanted: Tensor, found: Tensor) -> float:
    """Return the share of `wanted` (Q, k) that `found` (Q, n) holds."""
    return float((wanted.unsqueeze(2) == found.unsqueeze(1)).any(2).float().mean())


def one_vector(
    bench: Benchmark, evaluator: Evaluator, items: Tensor, queries: Tensor
) -> dict[str, dict[str, float]]:
    """Return how well one vector a user stands for all interests, by name of the way."""
    seen = evaluator.test.seen
    wanted = search(ExactVectors(items), queries, K, seen)[1]
    mean = F.normalize(queries.mean(1), dim=1)
    ways: dict[str, tuple[Tensor, Tensor]] = {
        "mean of the interests": (items, mean),
        "first interest alone": (items, queries[:, 0]),
    }
    figures: dict[str, dict[str, float]] = {
        "several searches": {"found": 1.0, "width": items.shape[1], **evaluator.metrics(wanted)}
    }
    timing: dict[str, Callable[[], object]] = {
        "several searches": asker(items, queries, seen),
    }
    for bits, repetitions in WIDTHS[:2] if bench.quick else WIDTHS:
        encoding = FixedDimensionalEncoding(items.shape[1], bits=bits, repetitions=repetitions)
        name = f"encoded, {bits} bits x {repetitions}"
        ways[name] = (encoding.items(items), encoding.queries(queries))
    for name, (candidates, asked) in ways.items():
        top = search(ExactVectors(candidates), asked, DEEP, seen)[1]
        figures[name] = {
            "width": candidates.shape[1],
            "found": round(share_found(wanted, top[:, :K]), 4),
            "found_of_100": round(share_found(wanted, top), 4),
            **evaluator.metrics(top[:, :K]),
        }
        timing[name] = asker(candidates, asked, seen)
    for name, times in alternated(timing, 1 if bench.quick else 3).items():
        figures[name]["cpu_ms_a_query"] = round(times.cpu * 1000 / TIMED, 4)
    for name, found in figures.items():
        bench.row(name, ", ".join(f"{key} {value}" for key, value in found.items()))
    return figures


TIMED = 1024


def asker(items: Tensor, queries: Tensor, seen: Jagged) -> Callable[[], object]:
    """Return a search with the first queries, for its time."""
    rows = torch.arange(min(TIMED, len(queries)))
    asked, excluded = queries[:TIMED], seen.take(rows)
    return lambda: search(ExactVectors(items), asked, K, excluded)


def main() -> None:
    bench = Benchmark("interests", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    wanted = given.pop("counts", bench.sized("1,2,4,8", "1,4", "1,2"))
    counts = [int(one) for one in wanted.split(",")]
    seeds = int(given.pop("seeds", "1"))
    rest = tuple(f"{key}={value}" for key, value in given.items())
    if bench.quick:
        small = (*SMALL_MODEL, *SMALL_TRAINING) if bench.smoke else ()
        rest = ("training.epochs=2", *small, *rest)
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="interests-") as folder:
        config = config_of(Path(folder), rest)
        data = load_data(config)
    evaluator = Evaluator(config, data)
    figures: dict[str, Any] = {}
    best: tuple[float, int, Tensor, Tensor] | None = None
    for seed in range(seeds):
        for count in counts:
            model, found = train(with_interests(config, count, seed), evaluator)
            items, queries = evaluator.vectors(model)
            found |= evaluator.metrics(
                search(ExactVectors(items), queries, K, evaluator.test.seen)[1]
            )
            if count > 1:
                found["likeness"] = round(likeness(queries), 3)
            figures[f"interests {count}, seed {seed}"] = found
            bench.row(f"interests {count}, seed {seed}", str(found))
            if count > 1 and (best is None or found["validation_ndcg"] > best[0]):
                best = (found["validation_ndcg"], count, items, queries)
    if best is not None:
        figures["searched_interests"] = best[1]
        figures["searches"] = one_vector(bench, evaluator, best[2], best[3])
    figures |= {"items": data.num_items, "test_queries": len(evaluator.test)}
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
