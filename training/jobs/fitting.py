"""The fitting of a model that counts and solves: tables in; a run, a report and a bundle out."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.events import Listener, PointLogged
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.machine import peak_memory_mib
from recsys.training.families.chosen import facts_of_final
from recsys.training.families.family import FittedFamily, FittedJob, Given
from recsys.training.families.held_out import evaluated_words
from recsys.training.jobs.runs import TrackingListener, TrainResult, new_run_dir, tracked
from recsys.training.search.stopping import stoppable
from recsys.training.tracking.run import Tracker

LOG = logging.getLogger(__name__)


def fit_tracked(
    config: ExperimentConfig,
    family: FittedFamily[Any],
    resume: Path | None,
    listeners: tuple[Listener, ...],
    given: Given,
) -> TrainResult:
    """Read, fit, evaluate on what the split holds out, report, bundle, track.

    Args:
        config: the experiment.
        family: that of its model.
        resume: the folder of a run that was stopped; it is fitted from the start, in its folder.
        listeners: they receive the validation.
        given: what it is given besides.

    Raises:
        UserError: configuration or data are wrong, the model cannot be fitted on them, or several
            ranks are to.
    """
    kind = config.model.kind
    if given.world.size > 1:
        raise ConfigError(f"model.kind: {kind} is fitted in one process: start it without torchrun")
    job = family.open(config, given)
    run_dir = resume or new_run_dir(config)
    if not given.is_source:
        for name, value in job.facts.items():
            LOG.info(f"{name}: {value}")
    tags = {"kind": kind} | facts_of_final(config, given.chosen)
    with stoppable():
        return tracked(config, run_dir, job, tags, partial(_run, job, run_dir, listeners))


def validated(job: FittedJob, model: Any, listeners: tuple[Listener, ...]) -> dict[str, float]:
    """Return the metrics on the validation queries, and tell them as the only epoch's."""
    found = job.validate(model)
    if found:
        point: Mapping[str, float] = {f"validation/{name}": one for name, one in found.items()}
        for listener in listeners:
            listener(PointLogged({"step": 1.0, "epoch": 0.0, **point}))
    return found


def _run(
    job: FittedJob, run_dir: Path, listeners: tuple[Listener, ...], tracker: Tracker
) -> TrainResult:
    model = job.fit(run_dir)
    metric = job.config.training.metric
    found = validated(job, model, (*listeners, TrackingListener(tracker)))
    if metric in found:
        LOG.info(f"validation {metric}: {found[metric]:.4f}; {evaluated_words(job.config)}")
    done = job.finish(run_dir, model)
    for warning in done.warnings:
        LOG.warning(warning)
    tracker.metrics(done.evaluation.tracked(), 1)
    if job.given.report:
        tracker.artifact(done.report)
    tracker.artifact(run_dir / "config.yaml")
    tracker.tag("model_id", done.bundle.name)
    tracker.metrics({"machine/peak_memory_mib": float(peak_memory_mib())}, 1)
    LOG.info(f"peak memory: {peak_memory_mib():,} MiB")
    Checkpoints.of_run(run_dir).clear()
    return TrainResult(run_dir, done.bundle, done.report, done.evaluation, None)
