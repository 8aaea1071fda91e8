"""The job behind `recsys train`: tables in; a run, a report and a bundle out."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError
from recsys.core.events import Listener
from recsys.embeddings.backend import pick_backend
from recsys.embeddings.diagnostics import diagnose
from recsys.embeddings.memory import check_disk, check_memory, costs, free_memory_bytes
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.sharded import check_shards
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.config.file import dump_config
from recsys.training.config.retrieval import to_meet
from recsys.training.config.sections import TrainingConfig
from recsys.training.engine.checkpoint import Checkpoints, LoopState
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory, peak_memory_mib, pick_device
from recsys.training.engine.parts import plain_table
from recsys.training.engine.ranks import World, ranks_here
from recsys.training.engine.run_home import local_folder
from recsys.training.engine.warm_start import open_earlier, start_from
from recsys.training.evaluation.evaluate import ExtraRankers
from recsys.training.families.chosen import facts_of_final, open_chosen
from recsys.training.families.family import FittedFamily, Given, Job, LearnedFamily
from recsys.training.families.held_out import evaluated_words
from recsys.training.families.load import parse_config
from recsys.training.families.registry import family_of
from recsys.training.jobs.fitting import fit_tracked
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.runs import (
    TrackingListener,
    TrainResult,
    bundle_of_finished,
    new_run_dir,
    tracked,
)
from recsys.training.tracking.run import Tracker

LOG = logging.getLogger(__name__)

FEW_STEPS = 50
"""A training of fewer is warned about."""


def train(
    config: ExperimentConfig,
    *,
    resume: Path | None = None,
    listeners: tuple[Listener, ...] = (),
    extra_rankers: ExtraRankers | None = None,
    world: World | None = None,
    report: bool = True,
    is_source: bool = False,
) -> TrainResult | None:
    """Read, train, evaluate on what the split holds out, report, bundle, track.

    Args:
        config: the experiment.
        resume: the folder of a run that was stopped; it continues from its checkpoint.
        listeners: they receive the steps.
        extra_rankers: more rankers for the evaluation.
        world: the ranks that train together (`recsys.training.engine.ranks.join`); None: this
            process alone. The first rank alone evaluates, writes, tracks and gets a result.
        report: whether the report is drawn.
        is_source: whether it is a source of a pipeline, which has said everything of the data.

    Raises:
        UserError: configuration or data are wrong, or a loss was not finite.
        Terminated: a signal came; `resume` continues.
    """
    keep_freed_memory()
    family = family_of(config)
    family.check(config)
    given = Given(world or World(), extra_rankers=extra_rankers, report=report, is_source=is_source)
    if isinstance(family, FittedFamily):
        given = replace(given, train=train_below, chosen=open_chosen(config))
        return fit_tracked(config, family, resume, listeners, given)
    assert isinstance(family, LearnedFamily)
    assert isinstance(config, LearnedExperiment)
    return _learn(config, family, resume, listeners, world, given)


def train_below(keys: dict[str, Any], run_dir: Path, report: bool = False) -> Path:
    """Train what some keys say in the folder `run_dir`, and return the bundle.

    A run that is there already is kept, and continued where it was stopped.

    Args:
        keys: of its configuration.
        run_dir: made where missing.
        report: whether one is drawn.
    """
    finished = bundle_of_finished(run_dir)
    if finished is not None:
        return finished
    config = parse_config(keys, source=run_dir.parent.name)
    run_dir.mkdir(parents=True, exist_ok=True)
    with whole_file(run_dir / "config.yaml") as staging:
        staging.write_text(dump_config(config))
    result = train(config, resume=run_dir, report=report, is_source=True)
    assert result is not None, "one process is its own first rank"
    return result.bundle


def _learn(
    config: LearnedExperiment,
    family: LearnedFamily[Any],
    resume: Path | None,
    listeners: tuple[Listener, ...],
    world: World | None,
    given: Given,
) -> TrainResult | None:
    """Train a model that learns; see `train`. given: without world and earlier model."""
    world = World(device=pick_device(config.training.device)) if world is None else world
    if world.size > 1:
        check_shards(config.embedding, world.size)
    earlier, chosen = open_earlier(config), open_chosen(config)
    check_memory(
        config.embedding,
        free_memory_bytes(),
        ranks=world.size,
        ranks_here=ranks_here(world),
        gathered_bytes=_gathered_bytes(config) if world.size > 1 and world.is_first else 0,
        copies=int(config.training.average_epochs > 0),
    )
    check_disk(
        config.embedding,
        resume or local_folder(config.output),
        copies=int(config.training.average_epochs > 0),
    )
    run_dir = Path(world.tell(str(resume or (new_run_dir(config) if world.is_first else ""))))
    if not run_dir.is_dir():
        raise ConfigError(
            f"rank {world.rank} does not see {run_dir}, which the first rank made: 'output' has to "
            "be an absolute path on a file system that all machines share"
        )
    meets = to_meet(config)
    given = replace(
        given,
        world=world,
        earlier=earlier,
        chosen=chosen,
        meets=None if meets is None else open_model(Path(meets)),
    )
    job = family.open(config, given)
    config, kernel = _with_backend(config, job, world, run_dir)
    job = job.under(config)
    if not world.is_first:
        fit_in(world, job, config, run_dir, ())
        return None
    if not given.is_source:
        for name, value in job.facts.items():
            LOG.info(f"{name}: {value}")
    LOG.info(f"table kernel: {kernel}")
    tags = {"kind": config.model.kind, "workers": str(world.size), "table_kernel": kernel}
    tags |= facts_of_final(config, chosen)
    run = partial(_run, config, job, run_dir, listeners, world)
    return tracked(config, run_dir, job, tags, run)


def _gathered_bytes(config: LearnedExperiment) -> int:
    """What the first rank collects of the table to evaluate it and to write the bundle."""
    table = config.embedding
    return table.memory_bytes if config.keep_optimizer_state else table.total_rows * table.dim * 4


def _with_backend(
    config: LearnedExperiment, job: Job, world: World, run_dir: Path
) -> tuple[LearnedExperiment, str]:
    """Settle which kernel runs the table, and write it down: a resumed run must use the same.

    Returns:
        The configuration that names it, and a description.
    """
    if world.size > 1:
        return config, "TorchRec's fused one, on the rows of each process"
    plan = EmbeddingPlan.of(config.embedding, job.layouts)
    choice = pick_backend(
        config.embedding, plan, batch_size=config.training.batch_size, device=world.device
    )
    table = config.embedding.model_copy(update={"backend": choice.backend})
    settled = config.model_copy(update={"embedding": table})
    with whole_file(run_dir / "config.yaml") as staging:
        staging.write_text(dump_config(settled))
    return settled, str(choice)


def fit_in(
    world: World,
    job: Job,
    config: LearnedExperiment,
    run_dir: Path,
    listeners: tuple[Listener, ...],
) -> tuple[nn.Module, LoopState]:
    """Train as one of the ranks; on the first one the model returned has its whole table."""
    task = job.task()
    model: Any = task.trained.model
    for line in model.embedding.plan.lines():
        LOG.info(line)
    LOG.info(costs(model.embedding.plan, config.embedding).line)
    steps = task.num_steps * config.training.epochs
    LOG.info(f"training: {task.num_steps:,} steps an epoch, {steps:,} at most")
    for line in doubts(steps, config.training):
        LOG.warning(line)
    checkpoints = Checkpoints.of_run(run_dir, world)
    earlier = job.given.earlier
    if earlier is not None and not checkpoints.steps():
        for line in start_from(earlier, config, model, task.trained.table):
            LOG.info(line)
    state = fit(task, config.training, checkpoints, listeners, world)
    whole = plain_table(config, model.embedding.table, world)
    if whole is not None:
        model.embedding.table = whole
        model.cpu()
    return model, state


def doubts(steps: int, training: TrainingConfig) -> Iterator[str]:
    """Yield what of a training of so many steps is unlikely to be meant."""
    if steps < FEW_STEPS:
        yield (
            f"{steps:,} steps are few to train a model: set a smaller training.batch_size "
            f"(it is {training.batch_size:,}), or more epochs"
        )
    if training.average_epochs > training.epochs / 2:
        yield (
            f"training.average_epochs: {training.average_epochs:g} of "
            f"{training.epochs:,} epochs includes much of the first steps: half of them "
            "at most are usual"
        )


def still_rising(state: LoopState, training: TrainingConfig) -> Iterator[str]:
    """Yield that the last epoch of several was the best, where it was: more would be better."""
    if state.epoch < training.epochs or state.epoch < 2 or state.best_step != state.global_step:
        return
    name = f"validation/{training.metric}"
    curve = [point[name] for point in state.history if name in point]
    gained = f" by {curve[-1] - curve[-2]:.4f}" if len(curve) > 1 else ""
    yield (
        f"validation {training.metric} was still rising{gained} in the last of "
        f"{training.epochs:,} epochs: the model is not converged; set more training.epochs "
        f"(training ends by itself after {training.patience} epochs without a better one)"
    )


def _run(
    config: LearnedExperiment,
    job: Job,
    run_dir: Path,
    listeners: tuple[Listener, ...],
    world: World,
    tracker: Tracker,
) -> TrainResult:
    watching: tuple[Listener, ...] = (*listeners, TrackingListener(tracker))
    model, state = fit_in(world, job, config, run_dir, watching)
    then = evaluated_words(config)
    if state.best_metric is None:
        LOG.info(f"no validation rows were left out: the last epoch is kept; {then}")
    else:
        LOG.info(f"best validation {config.training.metric}: {state.best_metric:.4f}; {then}")
        for line in still_rising(state, config.training):
            LOG.warning(line)
    embedding: Any = model.embedding
    diagnosis = diagnose(embedding.plan, job.feature_values(), embedding.table.weight)
    done = job.finish(run_dir, model, state.history, diagnosis)
    for warning in done.warnings:
        LOG.warning(warning)
    tracker.metrics(done.evaluation.tracked() | diagnosis.metrics(), state.global_step)
    if job.given.report:
        tracker.artifact(done.report)
    tracker.artifact(run_dir / "config.yaml")
    tracker.tag("model_id", done.bundle.name)
    tracker.metrics({"machine/peak_memory_mib": float(peak_memory_mib())}, state.global_step)
    LOG.info(f"peak memory: {peak_memory_mib():,} MiB")
    Checkpoints.of_run(run_dir).clear()
    return TrainResult(run_dir, done.bundle, done.report, done.evaluation, None)
