"""What the benchmarks of sessions share: train a configuration, evaluate it, tabulate by seed."""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, peak_memory_mib

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.load import load_config
from recsys.training.families.retrieval.evaluating import evaluate_model
from recsys.training.families.retrieval.memory import memory_of
from recsys.training.families.session.reading import SessionData
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train

Figures = dict[str, dict[str, float]]
SMALL = (*SMALL_MODEL, *SMALL_TRAINING, "model.history_length=10")
"""Of `--smoke`."""


def config_of(
    settings: Path, rows: Path, folder: Path, overrides: Sequence[str]
) -> ExperimentConfig:
    """Return the configuration with its tables in `rows` and all that it writes in `folder`."""
    config = load_config(settings, tuple(overrides))
    named = {"interactions": config.data.interactions, "items": config.data.items}
    found = {key: str(rows / Path(path).name) for key, path in named.items() if path is not None}
    changes: dict[str, Any] = {
        "data": config.data.model_copy(update=found),
        "tracking": config.tracking.model_copy(update={"enabled": False}),
        "output": str(folder / "runs"),
        "cache": str(folder / "cache"),
    }
    return config.model_copy(update=changes)


def trained(config: ExperimentConfig) -> tuple[Evaluation, Path, float]:
    """Return what was found, the bundle, and the CPU seconds, baselines' among them."""
    start = time.process_time()
    result = train(config, listeners=())
    assert result is not None
    assert isinstance(result.evaluation, Evaluation)
    return result.evaluation, result.bundle, time.process_time() - start


def evaluated_otherwise(bundle: Path, **evaluation: Any) -> Evaluation:
    """Evaluate a trained model again, with other keys of `evaluation`."""
    opened = open_model(bundle)
    settings = opened.config.evaluation.model_copy(update=evaluation)
    config = opened.config.model_copy(update={"evaluation": settings})
    data = opened.data()
    reading = SessionData.of(config, data)
    model = opened.retrieval_model()
    return evaluate_model(reading, model, fitted=memory_of(opened, reading, model)).evaluation


def metrics_of(evaluation: Evaluation, names: Mapping[str, str]) -> Figures:
    """Return ranker -> name in the table -> value; `names`: metric -> name in the table."""
    return {
        ranker: {short: result.metrics[metric] for metric, short in names.items()}
        for ranker, result in evaluation.results.items()
    }


def show(benchmark: Benchmark, what: str, figures: Figures) -> None:
    """Print a line a ranker."""
    for ranker, values in figures.items():
        cells = " / ".join(f"{name} {value:.4f}" for name, value in values.items())
        benchmark.row(f"{what}: {ranker}", cells)


def run(
    benchmark: Benchmark,
    settings: Path,
    rows: Path,
    names: Mapping[str, str],
    *,
    otherwise: Mapping[str, Mapping[str, Any]] | None = None,
    final: Sequence[str] = (),
) -> None:
    """Train `settings` for each seed (`--set seeds=N`), evaluate, print and finish.

    Args:
        benchmark: the run.
        settings: the YAML file.
        rows: the folder of its tables.
        names: metric -> name in the table.
        otherwise: more evaluations of the same model: name -> keys of `evaluation`.
        final: overrides of the last training, behind those of `--set`.
    """
    keep_freed_memory()
    seeds = [int(one[6:]) for one in benchmark.overrides if one.startswith("seeds=")] or [1]
    overrides = [one for one in benchmark.overrides if not one.startswith("seeds=")]
    if benchmark.quick:
        small = SMALL if benchmark.smoke else ()
        overrides = [*small, "training.epochs=1", "evaluation.max_queries=1000", *overrides]
    found: dict[str, list[Figures]] = {}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds[0]):
            own = [*final, *overrides, f"training.seed={seed}"]
            if seed:
                own.append("evaluation.baselines=[popularity]")
            config = config_of(settings, rows, Path(folder), own)
            evaluation, bundle, cpu = trained(config)
            seconds.append(round(cpu))
            parts = {"test": evaluation} | {
                name: evaluated_otherwise(bundle, **keys)
                for name, keys in (otherwise or {}).items()
            }
            for name, one in parts.items():
                figures = metrics_of(one, names)
                show(benchmark, f"seed {seed}, {name}", figures)
                found.setdefault(name, []).append(figures)
    mean = {
        name: {
            short: statistics.mean(one["session"][short] for one in of_seeds)
            for short in names.values()
        }
        for name, of_seeds in found.items()
    }
    benchmark.finish(
        {
            **mean["test"],
            "mean": mean,
            "seed_0": {name: of_seeds[0] for name, of_seeds in found.items()},
            "of_each_seed": {n: [one["session"] for one in of] for n, of in found.items()},
            "seeds": seeds[0],
            "cpu_s": seconds,
            "peak_memory_mib": peak_memory_mib(),
        }
    )
