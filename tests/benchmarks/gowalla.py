"""Gowalla (the LightGCN split), ids only: recall@20 and NDCG@20 over all items not in training.

Trains `gowalla.yaml` on all training rows, for as many epochs as a tenth of each user's training
rows chose, and evaluates it on the test part beside the baselines. What the settings reach on that
tenth: `--set split.join_validation=false`. More seeds: `--set seeds=3`. Other keys are of the
configuration.
"""

import statistics
import tempfile
import time
from pathlib import Path

from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, peak_memory_mib
from _loaned import loaned

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

SETTINGS = Path(__file__).with_name("gowalla.yaml")


def config_of(folder: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    config = load_config(SETTINGS, overrides)
    data = config.data.model_copy(
        update={"interactions": str(loaned("gowalla") / "interactions.parquet")}
    )
    tracking = config.tracking.model_copy(update={"enabled": False})
    changes = {"data": data, "tracking": tracking, "output": str(folder / "runs")}
    return config.model_copy(update={**changes, "cache": str(folder / "cache")})


def trained(config: ExperimentConfig, benchmark: Benchmark) -> tuple[Evaluation, float]:
    """Train and evaluate; returns what was found and CPU seconds, the baselines' among them."""
    start = time.process_time()
    result = train(config, listeners=())
    assert result is not None
    assert isinstance(result.evaluation, Evaluation)
    return result.evaluation, time.process_time() - start


def main() -> None:
    benchmark = Benchmark("gowalla", __doc__ or "")
    keep_freed_memory()
    loaned("gowalla")
    seeds = [int(one[6:]) for one in benchmark.overrides if one.startswith("seeds=")] or [1]
    overrides = tuple(one for one in benchmark.overrides if not one.startswith("seeds="))
    if benchmark.quick:
        small = (*SMALL_MODEL, *SMALL_TRAINING) if benchmark.smoke else ()
        overrides = (*small, "training.epochs=1", "evaluation.max_queries=1000", *overrides)
    figures: dict[str, object] = {}
    found: dict[str, list[float]] = {"recall_at_20": [], "ndcg_at_20": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds[0]):
            own = (f"training.seed={seed}", "split.join_validation=true", *overrides)
            if seed:
                own = ("evaluation.baselines=[popularity]", *own)
            evaluation, cpu = trained(config_of(Path(folder), own), benchmark)
            for name, values in found.items():
                values.append(evaluation.results["two_tower"].metrics[name])
            for name, result in evaluation.results.items():
                cells = [f"{result.metrics[metric]:.4f}" for metric in found]
                benchmark.row(f"seed {seed}: {name}", " / ".join(cells))
            if not seed:
                figures["test"] = {
                    name: {metric: result.metrics[metric] for metric in found}
                    for name, result in evaluation.results.items()
                }
                figures["left_out"] = dict(evaluation.left_out)
                figures["cpu_s"] = round(cpu)
    figures |= {name: statistics.mean(values) for name, values in found.items()}
    figures |= {"seeds": seeds[0], "of_each_seed": found, "peak_memory_mib": peak_memory_mib()}
    benchmark.finish(figures)


if __name__ == "__main__":
    main()
