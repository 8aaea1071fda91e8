"""A training as a function: configuration in, a finished run out."""

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.app.progress import printed
from recsys.app.run import Run
from recsys.bundle.directory import Bundle, bundles_of_run
from recsys.core.errors import ConfigError
from recsys.core.events import Listener
from recsys.core.tracking_store import store_uri
from recsys.serving.registry import register as add_version
from recsys.serving.registry import resolve
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment, passes, start_of
from recsys.training.engine.ranks import join, leave
from recsys.training.families.registry import family_of
from recsys.training.jobs.runs import config_of_run, new_run_dir
from recsys.training.jobs.train import train
from recsys.training.tracking.progress import Progress

LOG = logging.getLogger(__name__)


def configured(
    config: ExperimentConfig | None,
    resume: Path | None,
    warm_start: str | None,
    tracking_uri: str | None,
) -> tuple[ExperimentConfig, Path | None]:
    """Return what to train and the run to continue.

    Raises:
        ConfigError: not just one of `config` and `resume` is given, what does not go with
            `resume` is, or `tracking_uri` is no store's.
    """
    if (config is None) == (resume is None):
        raise ConfigError("give a configuration or a run to resume, one of the two")
    if resume is not None:
        if warm_start is not None:
            raise ConfigError("warm_start does not go with resume: a run keeps its configuration")
        if tracking_uri is not None:
            raise ConfigError(
                "a tracking uri does not go with resume: a run keeps its store; "
                f"`recsys sync {resume} --tracking-uri URI` sends all of it to another"
            )
        return config_of_run(resume), resume
    assert config is not None
    if tracking_uri is not None:
        tracking = config.tracking.model_copy(update={"uri": store_uri(tracking_uri)})
        config = config.model_copy(update={"tracking": tracking})
    reference = warm_start or start_of(config)
    if reference is None:
        return config, None
    if not isinstance(config, LearnedExperiment):
        raise ConfigError(
            f"warm_start: a model of kind {config.model.kind} is counted anew each time, and has "
            "nothing to start from: leave it out"
        )
    folder = resolve(reference, uri=config.tracking.uri).resolve()
    return config.model_copy(update={"warm_start": str(folder)}), None


def train_once(
    config: ExperimentConfig,
    resume: Path | None,
    *,
    quiet: bool = False,
    extra_rankers: Any = None,
    listeners: tuple[Listener, ...] = (),
) -> Run | None:
    """Train in this process, and register where the configuration names a model.

    Joins the other ranks where torchrun started several; None on all of them but the first.
    """
    # In a notebook without widgets tqdm, which MLflow brings, warns when it is imported.
    warnings.filterwarnings("ignore", message="IProgress not found")
    world = join(config.training.device if isinstance(config, LearnedExperiment) else "cpu")
    quiet = quiet or not world.is_first
    watched = Progress(passes(config), metric=config.training.metric, quiet=quiet)
    with printed(quiet), watched as progress:
        result = train(
            config,
            resume=resume,
            listeners=(progress, *listeners),
            extra_rankers=extra_rankers,
            world=world,
        )
    leave(world)
    if result is None:
        return None
    run = Run(
        path=result.run_dir,
        bundle=result.bundle,
        report=result.report,
        run_id=result.run_id,
        evaluation=result.evaluation,
    )
    name = config.tracking.model_name
    if config.tracking.enabled and name:
        bundle = Bundle.open(result.bundle)
        version = add_version(bundle, name, uri=config.tracking.uri)
        with printed(quiet):
            LOG.info(f"registered models:/{name}/{version}")
        run = replace(run, version=version)
    return run


def train_in_workers(
    config: ExperimentConfig, resume: Path | None, workers: int, *, quiet: bool
) -> Run:
    """Train in several processes of this machine.

    Raises:
        ConfigError: a process failed; its own message went to the terminal.
    """
    run_dir, code = launch_workers(config, resume, workers, quiet=quiet)
    bundles = bundles_of_run(run_dir)
    if code or not bundles:
        raise ConfigError(f"{run_dir}: a process ended with exit code {code}; its message says why")
    return Run(
        path=run_dir,
        bundle=bundles[0],
        report=run_dir / "report.html",
    )


def launch_workers(
    config: ExperimentConfig, resume: Path | None, workers: int, *, quiet: bool
) -> tuple[Path, int]:
    """Start `workers` ranks of a run on this machine; return its folder and the exit code."""
    import os

    from recsys.embeddings.sharded import check_shards
    from recsys.training.engine.launch import launch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--workers starts ranks of its own: leave it out under torchrun")
    family_of(config).check(config)
    if not isinstance(config, LearnedExperiment):
        raise ConfigError(
            f"model.kind: {config.model.kind} is fitted in one process: leave --workers out"
        )
    check_shards(config.embedding, workers)
    run_dir = resume or new_run_dir(config)
    arguments = ("--json",) if quiet else ()
    with printed(quiet=False):
        return run_dir, launch(run_dir, workers, arguments)
