"""A run of a training: its folder, what it leaves, and its tracking."""

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from recsys.bundle.directory import bundles_of_run
from recsys.core.atomic import write_whole
from recsys.core.errors import ConfigError, NotFoundError
from recsys.core.events import Event, PointLogged
from recsys.core.remote.path import RemotePath, path_at
from recsys.core.signals import Terminated
from recsys.core.system_errors import system_error
from recsys.features.tables.sources import log_name
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.run_home import begin_at, home_address
from recsys.training.evaluation.results import ModelEvaluation
from recsys.training.families.family import OpenedData
from recsys.training.families.load import load_config
from recsys.training.tracking.run import Tracker, start_run

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Where everything went."""

    run_dir: Path
    bundle: Path
    report: Path
    evaluation: ModelEvaluation
    run_id: str | None


def tracked(
    config: ExperimentConfig,
    run_dir: Path,
    about: OpenedData,
    tags: dict[str, str],
    run: Callable[[Tracker], TrainResult],
) -> TrainResult:
    """Do `run` as a run of MLflow's, whose status is how it ended.

    Raises:
        ConfigError: another process is at this run, or its data are not those that it began with.
    """
    with _alone(run_dir):
        return _tracked(config, run_dir, about, tags, run)


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Keep the run for this process; the system lets go of it with the process."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(run_dir / ".lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"{run_dir}: another process is training this run; wait until it ends, or stop it"
        ) from None


def _tracked(
    config: ExperimentConfig,
    run_dir: Path,
    about: OpenedData,
    tags: dict[str, str],
    run: Callable[[Tracker], TrainResult],
) -> TrainResult:
    tracker = start_run(
        config.tracking,
        run_dir=run_dir,
        name=run_dir.name,
        params=flat(config.model_dump(mode="json", by_alias=True)),
        tags=tags,
    )
    status = "FAILED"
    try:
        earlier = tracker.earlier_fingerprint()
        if earlier not in (None, about.fingerprint):
            raise ConfigError(
                f"{run_dir}: the data are not those that this run began with (fingerprint "
                f"{about.fingerprint[:12]}, then {earlier[:12]}): bring those back, or train anew"
            )
        tracker.dataset(log_name(config.data.interactions), about.fingerprint, about.facts)
        result = run(tracker)
        status = "FINISHED"
    except Terminated as stopped:
        status, stopped.told = "KILLED", True
        _say_how_it_continues(about, run_dir)
        raise
    except Exception as error:
        if system_error(error) is not None:
            _say_how_it_continues(about, run_dir)
        raise
    finally:
        tracker.finish(status)
    # The run is made in the background: only now is it sure to have an id, if it has one.
    return replace(result, run_id=tracker.run_id)


def _say_how_it_continues(about: OpenedData, run_dir: Path) -> None:
    if not about.given.is_source:  # else the pipeline's run says how all of it continues
        LOG.info(f"stopped; continue with: recsys train --resume {home_address(run_dir)}")


def new_run_dir(config: ExperimentConfig) -> Path:
    """Create the folder of a new run, with the configuration in it.

    Where `output` is in a store, the working folder of one that is there (`run_home`).
    """
    parent = path_at(config.output)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    if isinstance(parent, RemotePath):
        # Nobody can see there whether another one takes the same name.
        name = f"{config.model.kind}-{stamp}-{uuid.uuid4().hex[:4]}"
        return begin_at(parent / name, dump_config(config))
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        run_dir = parent / f"{config.model.kind}-{stamp}{suffix}"
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        write_whole(run_dir / "config.yaml", dump_config(config))
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
    Checkpoints.of_run(run_dir).sweep()
    finished = bundle_of_finished(run_dir)
    if finished is not None:
        raise ConfigError(f"{run_dir}: this run is finished; its bundle is {finished}")
    return load_config(path)


def bundle_of_finished(run_dir: Path) -> Path | None:
    """Return the bundle of the run in `run_dir`; None: it has none yet, or is not finished."""
    bundles = bundles_of_run(run_dir)
    return bundles[-1] if bundles and not Checkpoints.of_run(run_dir).steps() else None


class TrackingListener:
    """Sends what the loop logs to the tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def __call__(self, event: Event) -> None:
        """Send one point of the curves; steps are not tracked one by one."""
        if not isinstance(event, PointLogged):
            return
        step = int(event.values["step"])
        values = {name: one for name, one in event.values.items() if name not in ("step", "epoch")}
        values = {n if "/" in n else f"train/{n}": value for n, value in values.items()}
        self.tracker.metrics(values, step)


def flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return the values of a configuration by their full keys."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
