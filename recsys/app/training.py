"""A training as a function: configuration in, a finished run out."""

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.app.progress import printed
from recsys.app.run import Run
from recsys.app.starting import Planned
from recsys.bundle.directory import Bundle, bundles_of_run
from recsys.core.errors import ConfigError
from recsys.core.events import Listener
from recsys.core.remote.path import is_remote
from recsys.core.signals import Terminated
from recsys.serving.registry import register as add_version
from recsys.serving.registry import resolve
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment, passes
from recsys.training.engine.ranks import join, leave
from recsys.training.engine.run_home import brought, home_address, leave_work, send_home
from recsys.training.families.registry import family_of
from recsys.training.jobs.final import final_config
from recsys.training.jobs.runs import new_run_dir
from recsys.training.jobs.train import train
from recsys.training.tracking.progress import Progress

LOG = logging.getLogger(__name__)


def train_planned(
    plan: Planned,
    workers: int,
    *,
    quiet: bool,
    listeners: tuple[Listener, ...] = (),
) -> Run | None:
    """Train what is planned, and then on all rows where that is planned, too.

    None on all ranks but the first of those that torchrun started.

    Raises:
        ConfigError: a process of several failed, or two trainings are to be done under torchrun.
    """
    if plan.then_final and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "final: ranks that torchrun started train one model: train first, then start them "
            "again with --final --from RUN"
        )
    try:
        run = _trained(plan, workers, quiet, listeners)
    except Terminated:
        if plan.then_final:
            with printed(quiet):
                LOG.info("with --final added it goes on to the final training")
        raise
    if not plan.then_final:
        return run
    assert run is not None, "one process is its own first rank"
    with printed(quiet):
        LOG.info(f"final training, on all rows, with what {run.path} chose")
    chosen = resolve(str(run.bundle), plan.config.tracking.uri)
    last = replace(plan, config=final_config(plan.config, chosen), resume=None)
    final = _trained(last, workers, quiet, listeners)
    assert final is not None, "one process is its own first rank"
    return replace(final, chosen=run)


def _trained(
    plan: Planned, workers: int, quiet: bool, listeners: tuple[Listener, ...]
) -> Run | None:
    if workers == 1:
        return train_once(
            plan.config, plan.resume, quiet=quiet, listeners=listeners, report=plan.report
        )
    return train_in_workers(plan, workers, quiet=quiet)


def train_once(
    config: ExperimentConfig,
    resume: Path | None,
    *,
    quiet: bool = False,
    extra_rankers: Any = None,
    listeners: tuple[Listener, ...] = (),
    report: bool = True,
) -> Run | None:
    """Train in this process, and register where the configuration names a model.

    Joins the other ranks where torchrun started several; None on all of them but the first.
    """
    # In a notebook without widgets tqdm, which MLflow brings, warns when it is imported.
    warnings.filterwarnings("ignore", message="IProgress not found")
    if resume is not None and is_remote(resume) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"{resume}: ranks that torchrun started work in one folder that all of them see: fetch "
            "the run there, or continue it with --workers"
        )
    resume = None if resume is None else brought(resume)
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
            report=report,
        )
    leave(world)
    if result is None:
        return None
    home = send_home(result.run_dir) or result.run_dir
    run = Run(
        path=home,
        bundle=home / result.bundle.relative_to(result.run_dir),
        report=home / result.report.relative_to(result.run_dir),
        run_id=result.run_id,
        evaluation=result.evaluation,
    )
    name = config.tracking.model_name
    if config.tracking.enabled and name:
        with printed(quiet):
            version = _registered(result.bundle, name, config.tracking.uri)
        run = replace(run, version=version)
    if home != result.run_dir:
        leave_work(result.run_dir)
    return run


def _registered(bundle: Path, name: str, uri: str | None) -> int:
    try:
        version = add_version(Bundle.open(bundle), name, uri=uri)
    except Terminated as stopped:
        stopped.told = True
        LOG.info(f"stopped; the model is trained: recsys register {bundle} --name {name}")
        raise
    LOG.info(f"registered models:/{name}/{version}")
    return version


def train_in_workers(plan: Planned, workers: int, *, quiet: bool) -> Run:
    """Train in several processes of this machine.

    Raises:
        ConfigError: a process failed; its own message went to the terminal.
    """
    run_dir, code = launch_workers(plan, workers, quiet=quiet)
    run_dir = run_dir if run_dir.is_dir() else home_address(run_dir)
    bundles = bundles_of_run(run_dir)
    if code or not bundles:
        raise ConfigError(f"{run_dir}: a process ended with exit code {code}; its message says why")
    return Run(
        path=run_dir,
        bundle=bundles[0],
        report=run_dir / "report.html",
    )


def launch_workers(plan: Planned, workers: int, *, quiet: bool) -> tuple[Path, int]:
    """Start `workers` ranks of a run on this machine; return its folder and the exit code."""
    from recsys.embeddings.memory import fits_one_process, free_memory_bytes
    from recsys.embeddings.sharded import check_shards
    from recsys.training.engine.launch import launch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--workers starts ranks of its own: leave it out under torchrun")
    config = plan.config
    family_of(config).check(config)
    if not isinstance(config, LearnedExperiment):
        raise ConfigError(
            f"model.kind: {config.model.kind} is fitted in one process: leave --workers out"
        )
    check_shards(config.embedding, workers)
    run_dir = new_run_dir(config) if plan.resume is None else brought(plan.resume)
    given = {"--json": quiet, "--no-report": not plan.report}
    arguments = tuple(option for option, is_given in given.items() if is_given)
    with printed(quiet=False):
        said = fits_one_process(config.embedding, free_memory_bytes())
        if said and not quiet:
            LOG.info(said)
        return run_dir, launch(run_dir, workers, arguments)
