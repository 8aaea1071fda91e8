"""The job behind `recsys train`: tables in; a run, a report and a bundle out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from torch import Tensor

from features.cache import cached
from features.dataset import Dataset, prepare
from features.queries import Queries, build_queries
from features.split import TEST, TRAIN, VALIDATION
from recsys.errors import ConfigError, NotFoundError
from recsys.models.two_tower import TwoTower, catalogue_vectors, query_vectors
from recsys.retrieval.topk import exact_topk
from recsys.weights import load_two_tower, save_two_tower
from training.checkpoint import Checkpoints
from training.config import ExperimentConfig, dump_config, load_config
from training.contents import IndexBuilder, write_two_tower
from training.evaluate import Ranker, baseline_rankers, evaluate
from training.loop import Listener, fit
from training.machine import keep_freed_memory, peak_memory_mib
from training.report import write_report
from training.results import Evaluation
from training.showcase import examples, item_groups, item_titles
from training.steps import two_tower_task
from training.tracking import Tracker, start_run

ExtraRankers = Callable[[Dataset, Queries], dict[str, Ranker]]
"""More rankers to judge beside the model and the baselines (the built-in world's best)."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """Where everything went."""

    run_dir: Path
    bundle: Path
    report: Path
    evaluation: Evaluation
    run_id: str | None


def train(
    config: ExperimentConfig,
    *,
    build_index: IndexBuilder,
    resume: Path | None = None,
    listeners: tuple[Listener, ...] = (),
    extra_rankers: ExtraRankers | None = None,
    say: Say = lambda line: None,
) -> TrainResult:
    """Read, train, evaluate on the test part, report, bundle, track.

    Args:
        config: the experiment.
        build_index: writes the bundle's index (`serving.index.build`).
        resume: the folder of a run that was stopped; it goes on where its checkpoint stands.
        listeners: who watches the steps.
        extra_rankers: more rankers for the evaluation.
        say: takes a line of progress at a time.

    Raises:
        UserError: configuration or data are wrong, or a loss was not finite.
        Terminated: a signal came; `resume` goes on.
    """
    keep_freed_memory()
    check_metric(config)
    run_dir = resume or new_run_dir(config)
    data = load_data(config)
    _say_data(data, say)
    tracker = start_run(
        config.tracking,
        run_dir=run_dir,
        name=run_dir.name,
        params=_flat(config.model_dump(mode="json", by_alias=True)),
        tags={"kind": config.model.kind},
    )
    status = "FAILED"
    try:
        tracker.dataset("training", data.tables.fingerprint, _facts(data))
        result = _run(config, data, run_dir, tracker, build_index, listeners, extra_rankers, say)
        status = "FINISHED"
    except SystemExit:
        status = "KILLED"
        say(f"stopped; go on with: recsys train --resume {run_dir}")
        raise
    finally:
        tracker.finish(status)
    # The run is made in the background: only now is it sure to have an id, if it has one.
    return replace(result, run_id=tracker.run_id)


def load_data(config: ExperimentConfig) -> Dataset:
    """Read and encode the tables of `config`, from its cache where it has one."""
    parts = (config.schema_, config.data, config.policies, config.split, config.embedding.lookups)
    if config.cache is None:
        return prepare(*parts)
    return cached(Path(config.cache), lambda: prepare(*parts), *parts)


def new_run_dir(config: ExperimentConfig) -> Path:
    """Create the folder of a new run, with the configuration in it."""
    parent = Path(config.output)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        run_dir = parent / f"{config.model.kind}-{stamp}{suffix}"
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        (run_dir / "config.yaml").write_text(dump_config(config))
        return run_dir
    raise ConfigError(f"{parent}: cannot make a new run folder")


def config_of_run(run_dir: Path) -> ExperimentConfig:
    """Return the configuration that the run in `run_dir` was started with.

    Raises:
        NotFoundError: there is no run.
        ConfigError: the run is finished.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise NotFoundError(f"{run_dir}: no run to resume (config.yaml is missing)")
    bundles = sorted((run_dir / "bundle").glob("*/manifest.json"))
    if bundles and not Checkpoints.of_run(run_dir).steps():
        raise ConfigError(f"{run_dir}: this run is finished; its bundle is {bundles[0].parent}")
    return load_config(path)


def check_metric(config: ExperimentConfig) -> None:
    """Refuse a metric that evaluation does not compute, before any work is done."""
    names = [
        f"{m}_at_{k}" for k in config.evaluation.ks for m in ("recall", "hit_rate", "ndcg", "mrr")
    ]
    if config.training.metric not in names:
        raise ConfigError(
            f"training.metric: '{config.training.metric}' is not computed; evaluation.ks allows "
            f"{', '.join(names)}"
        )


def judge(
    config: ExperimentConfig,
    data: Dataset,
    model: TwoTower,
    extra_rankers: ExtraRankers | None = None,
) -> tuple[Evaluation, Queries, Tensor, Tensor]:
    """Evaluate `model` on the test part; returns also queries, item and query vectors."""
    settings = config.evaluation
    queries = build_queries(
        data,
        TEST,
        history_length=config.model.history_length,
        filter_seen=settings.filter_seen,
        limit=settings.max_queries,
        seed=config.training.seed,
    )
    items = catalogue_vectors(model, data.items)
    vectors = query_vectors(model, queries.block, items, queries.history)
    rankers: dict[str, Ranker] = {
        config.model.kind: lambda asked, k: exact_topk(
            vectors, items, k, asked.seen if settings.filter_seen else None
        )[1].numpy()
    }
    rankers |= baseline_rankers(data, settings)
    if extra_rankers is not None:
        rankers |= extra_rankers(data, queries)
    evaluation = evaluate(
        data,
        queries,
        rankers,
        settings,
        protocol=_protocol(config, data),
        seed=config.training.seed,
        item_vectors=items,
        query_vectors=vectors,
    )
    return evaluation, queries, items, vectors


def report_on(
    path: Path,
    config: ExperimentConfig,
    data: Dataset,
    evaluation: Evaluation,
    queries: Queries,
    items: Tensor,
    history: list[dict[str, float]],
) -> None:
    """Write the HTML report of an evaluation."""
    write_report(
        path,
        title="Two-tower retrieval",
        config_text=dump_config(config),
        evaluation=evaluation,
        history=history,
        item_titles=item_titles(data),
        item_groups=item_groups(data),
        item_vectors=items.numpy(),
        examples=examples(data, queries, evaluation),
        facts=_facts(data),
    )


def _run(
    config: ExperimentConfig,
    data: Dataset,
    run_dir: Path,
    tracker: Tracker,
    build_index: IndexBuilder,
    listeners: tuple[Listener, ...],
    extra_rankers: ExtraRankers | None,
    say: Say,
) -> TrainResult:
    validation = build_queries(
        data,
        VALIDATION,
        history_length=config.model.history_length,
        filter_seen=config.evaluation.filter_seen,
        limit=config.training.max_validation_queries,
        seed=config.training.seed,
    )
    if len(validation) == 0:
        raise ConfigError("split: no user has a validation item; choose a larger share")
    task = two_tower_task(config, data, validation)
    model = task.trained.model
    assert isinstance(model, TwoTower)
    for line in model.embedding.plan.lines():
        say(line)
    checkpoints = Checkpoints.of_run(run_dir)
    state = fit(task, config.training, checkpoints, (*listeners, TrackingListener(tracker)))
    say(f"best validation {config.training.metric}: {state.best_metric:.4f}; evaluating on test")
    model = _on_cpu(model, config, data)
    evaluation, queries, items, vectors = judge(config, data, model, extra_rankers)
    measured = {**evaluation.results[config.model.kind].metrics, **evaluation.representation}
    tracker.metrics({f"test/{name}": value for name, value in measured.items()}, state.global_step)
    for name, result in evaluation.results.items():
        if name != config.model.kind:
            values = {f"test/{name}/{metric}": value for metric, value in result.metrics.items()}
            tracker.metrics(values, state.global_step)
    bundle = write_two_tower(
        run_dir / "bundle",
        config,
        data,
        model,
        query_vectors=vectors,
        build_index=build_index,
        metrics={"test": measured},
    )
    report = run_dir / "report.html"
    report_on(report, config, data, evaluation, queries, items, state.history)
    tracker.artifact(report)
    tracker.artifact(run_dir / "config.yaml")
    tracker.tag("model_id", bundle.name)
    tracker.metrics({"machine/peak_memory_mib": float(peak_memory_mib())}, state.global_step)
    say(f"peak memory: {peak_memory_mib():,} MiB")
    checkpoints.clear()
    return TrainResult(run_dir, bundle, report, evaluation, None)


def _on_cpu(model: TwoTower, config: ExperimentConfig, data: Dataset) -> TwoTower:
    """The table is no parameter and stays where it is: another device's model is read back."""
    if model.embedding.table.weight.device.type == "cpu":
        return model
    layouts = (data.encoder.layout("items"), data.encoder.query_layout())
    return load_two_tower(save_two_tower(model), config.model, config.embedding, layouts)


class TrackingListener:
    """Sends what the loop logs to the tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_step(self, *_: object) -> None:
        """Steps are not tracked one by one."""

    def on_log(self, point: dict[str, float]) -> None:
        """Send one point of the curves."""
        step = int(point["step"])
        values = {name: value for name, value in point.items() if name not in ("step", "epoch")}
        values = {n if "/" in n else f"train/{n}": value for n, value in values.items()}
        self.tracker.metrics(values, step)


def _protocol(config: ExperimentConfig, data: Dataset) -> dict[str, str]:
    counts = [int((data.part == part).sum()) for part in (TRAIN, VALIDATION, TEST)]
    words = {
        "time": "global time split",
        "leave_one_out": "leave one out, each user's last row",
        "column": f"given by the column '{config.split.column}'",
    }[config.split.kind]
    sizes = "{:,} training, {:,} validation and {:,} test rows".format(*counts)
    return {"split": words, "rows": sizes}


def _facts(data: Dataset) -> dict[str, str]:
    facts = {
        "interactions": f"{len(data.tables.events):,}",
        "users": f"{data.num_users:,}",
        "items": f"{data.num_items:,}",
        "data fingerprint": data.tables.fingerprint,
    }
    for drop in data.tables.drops:
        facts[f"{drop.table}.{drop.column}: {drop.reason}"] = f"{drop.rows:,} rows ({drop.policy})"
    return facts


def _say_data(data: Dataset, say: Say) -> None:
    for name, value in _facts(data).items():
        if name != "data fingerprint":
            say(f"{name}: {value}")


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
