"""Training one ranker for a benchmark, and the figures of its test rows."""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys.features.dataset.split import TEST, VALIDATION
from recsys.metrics.classification import auc, log_loss
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.ranker.evaluation import calibrator_by, calibrator_of
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import Predictions, predictions, ranking_task
from recsys.training.families.ranker.trees import TreeModel


@dataclass(frozen=True)
class Run:
    """A ranker trained once: its test predictions, best epoch and processor time.

    calibrated: the probabilities as a bundle gives them. curve: after each epoch, the processor
    time so far, and AUC and log loss of the validation and test rows, not calibrated.
    """

    found: Predictions
    calibrated: NDArray[np.float64]
    validation_auc: float
    best_epoch: float
    cpu_s: float
    curve: tuple[dict[str, float], ...] = ()

    def figures(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            **figures_of(self.found.logit, self.calibrated, self.found.label),
            "logloss_uncalibrated": log_loss(self.found.probability, self.found.label),
            "validation_auc": self.validation_auc,
            "best_epoch": self.best_epoch,
            "cpu_s": self.cpu_s,
            "curve": list(self.curve),
        }


def figures_of(
    score: NDArray[Any], probability: NDArray[Any], label: NDArray[Any]
) -> dict[str, float]:
    """Return AUC and log loss of rows that all weigh the same."""
    ones = np.ones(len(label), np.float32)
    return {"auc": auc(score, label, ones), "logloss": log_loss(probability, label, ones)}


def trained(config: ExperimentConfig, rows: RankingRows) -> Run:
    """Train on one thread; keep the epoch with the best validation AUC, and calibrate it."""
    torch.set_num_threads(1)
    keep_freed_memory()
    started = time.process_time()
    task = ranking_task(config, rows, World())  # type: ignore[arg-type]
    model: nn.Module = task.trained.model
    curve: list[dict[str, float]] = []
    aside = 0.0

    def validate() -> dict[str, float]:
        nonlocal aside
        own = task.validate()
        reached = time.process_time()
        there = predictions(model, rows, TEST, config.training.batch_size, World())
        found = figures_of(there.logit, there.probability, there.label)
        curve.append(
            {"cpu_s": round(reached - started - aside, 1)}
            | {f"validation_{name}": round(own[name], 5) for name in ("auc", "log_loss")}
            | {f"test_{name}": round(value, 5) for name, value in found.items()}
        )
        aside += time.process_time() - reached
        return own

    followed = replace(task, validate=validate)
    with tempfile.TemporaryDirectory(prefix="ranker-") as checkpoints:
        state = fit(followed, config.training, Checkpoints(Path(checkpoints)))
    cpu_s = time.process_time() - started - aside
    found = predictions(model, rows, TEST, config.training.batch_size, World())
    calibrator = calibrator_of(config, rows, model)  # type: ignore[arg-type]
    assert state.best_metric is not None
    epoch = (state.best_step or 0) / task.num_steps
    calibrated = calibrator.probability(found.logit)
    return Run(found, calibrated, state.best_metric, epoch, cpu_s, tuple(curve))


def gain_of_seeds(
    runs: Sequence[Run], base: Sequence[Run], samples: int
) -> tuple[float, float, float]:
    """Return by how much the AUC of the test rows is higher, on average over the seeds.

    And low and high of 95 % of it over resampled test rows, `samples` times.
    """
    label = runs[0].found.label
    assert all(np.array_equal(label, run.found.label) for run in (*runs, *base))
    rng = np.random.default_rng(0)

    def gain(rows: NDArray[np.int64]) -> float:
        pairs = zip(runs, base, strict=True)
        each = [[auc(run.found.logit[rows], label[rows]) for run in pair] for pair in pairs]
        return statistics.fmean(own - other for own, other in each)

    found = [gain(rng.integers(0, len(label), len(label))) for _ in range(samples)]
    low, high = np.quantile(found, [0.025, 0.975])
    return gain(np.arange(len(label))), float(low), float(high)


def trees_on(config: ExperimentConfig, rows: RankingRows) -> Run:
    """Train LightGBM on `rows`, as the report of a ranker does."""
    started = time.process_time()
    predict = partial(TreeModel.fit(config, rows).predictions, rows)  # type: ignore[arg-type]
    calibrator = calibrator_by(config, rows, predict)  # type: ignore[arg-type]
    cpu_s = time.process_time() - started
    found, known = predict(TEST), predict(VALIDATION)
    calibrated = calibrator.probability(found.logit)
    return Run(found, calibrated, auc(known.logit, known.label, known.weight), 0.0, cpu_s)


def averaged(runs: Sequence[Mapping[str, float]], *names: str) -> dict[str, float]:
    """Return mean and deviation of some figures over the seeds."""
    point: dict[str, float] = {}
    for name in names or ("auc", "logloss"):
        mean, deviation = mean_and_deviation([run[name] for run in runs])
        point |= {name: round(mean, 5), f"{name}_deviation": round(deviation, 5)}
    return point


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and the deviation of a sample; 0 of one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
