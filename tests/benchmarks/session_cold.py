"""Items that nobody could take yet, in a model of sessions: what finds them, and at what price.

A tenth of the items (`split.cold_items`) lose all their training rows. Each model is trained
without them, with and without the id among the items' fields, with and without the attributes of
the next item as further tasks, and on ids alone; then on all rows, for what the same items reach
when they are seen; with its memory of pairs, where the configuration has one, and without. Beside
them the popularity of their attributes (brand, category). `--set data=sports` or `data=diginetica`
(both where not given), `--set seeds=3`; other keys are of the configuration.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from _harness import Benchmark
from _loaned import loaned
from _session_rows import diginetica
from _session_runs import SMALL, config_of, trained

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.evaluation.results import WITHOUT_MEMORY
from recsys.training.families.session.config import AttributeTask

TASKS = {"sports": ("brand", "categories"), "diginetica": ("category",)}
METRICS = {
    "recall_at_20": "all",
    "cold_recall_at_20": "cold",
    "cold_alone_recall_at_20": "among cold",
}
CHEAPER = {
    "sports": ("training.epochs=5", "training.id_dropout=0.3"),
    "diginetica": (
        "model.dim=128",
        "embedding.dim=64",
        "training.epochs=3",
        "training.id_dropout=0.3",
        "training.uniform_negatives=2000",
        "evaluation.max_queries=20000",
    ),
}
"""Shorter trainings than the benchmarks of these data sets: eight for each seed."""


def variant(config: ExperimentConfig, name: str, tasks: tuple[str, ...]) -> ExperimentConfig:
    """Return the configuration with other fields of the items, and with or without tasks."""
    schema = config.schema_
    of_id = {feature.name for feature in schema.features_of("items") if schema.is_id(feature)}
    wanted: tuple[Any, ...] = schema.features
    if name == "metadata":
        wanted = tuple(f for f in schema.features if f.name not in of_id)
    elif name == "ids":
        wanted = tuple(f for f in schema.features if f.name in of_id)
    asked = ()
    if name in ("id + metadata, tasks", "metadata"):
        asked = tuple(AttributeTask(feature=task, weight=0.2) for task in tasks)
    session = config.training.session.model_copy(update={"attributes": asked})
    training = config.training.model_copy(update={"session": session})
    changes = {"schema_": schema.model_copy(update={"features": wanted}), "training": training}
    return config.model_copy(update=changes)


VARIANTS = ("id + metadata, tasks", "id + metadata", "metadata", "ids")


def measured(
    benchmark: Benchmark, data: str, rows: Path, seed: int, own: list[str]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    settings = Path(__file__).with_name(f"session_{data}.yaml")
    variants = benchmark.sized(VARIANTS, VARIANTS, VARIANTS[-1:])
    for name in (*variants, "the same items seen"):
        removed = name != "the same items seen"
        keys = [
            *CHEAPER[data],
            "split.join_validation=true",
            "split.cold_items.share=0.1",
            f"split.cold_items.removed={str(removed).lower()}",
            f"evaluation.baselines=[{'attributes' if name == VARIANTS[0] else 'popularity'}]",
            "index.kind=exact",
            f"training.seed={seed}",
            *own,
        ]
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(settings, rows, Path(folder), keys)
            config = variant(config, name if removed else VARIANTS[0], TASKS[data])
            evaluation, _, cpu = trained(config)
        for ranker, result in evaluation.results.items():
            if ranker == "popularity":
                continue
            what = {"session": name, WITHOUT_MEMORY: f"{name}, without memory"}.get(
                ranker, "popularity of attributes"
            )
            found[what] = {short: result.metrics[metric] for metric, short in METRICS.items()}
            cells = "  ".join(f"{short} {value:.4f}" for short, value in found[what].items())
            benchmark.row(f"{data}, seed {seed}: {what}", f"{cells}  ({cpu:.0f} CPU s)")
    return found


def main() -> None:
    benchmark = Benchmark("session_cold", __doc__ or "")
    keep_freed_memory()
    keys = dict(one.split("=", 1) for one in benchmark.overrides)
    seeds, chosen = int(keys.pop("seeds", "1")), keys.pop("data", "")
    own = [f"{key}={value}" for key, value in keys.items()]
    if benchmark.quick:
        small = SMALL if benchmark.smoke else ()
        own = [*small, "training.epochs=1", "evaluation.max_queries=2000", *own]
    both = "sports diginetica"
    figures: dict[str, Any] = {"seeds": seeds}
    for data in (chosen or benchmark.sized(both, both, "sports")).split():
        with tempfile.TemporaryDirectory() as folder:
            loaned("amazon-sports" if data == "sports" else data)
            rows = loaned("amazon-sports") if data == "sports" else diginetica(Path(folder))
            of_seeds = [measured(benchmark, data, rows, seed, own) for seed in range(seeds)]
        figures[data] = {
            name: {
                short: statistics.mean(one[name][short] for one in of_seeds)
                for short in METRICS.values()
            }
            for name in of_seeds[0]
        }
        figures[f"{data}_of_each_seed"] = of_seeds
    benchmark.finish(figures)


if __name__ == "__main__":
    main()
