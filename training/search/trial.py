"""One trial of a search: a training on data that were read and encoded once for all of them.

Nothing of a trial stays but its numbers: no weights, no checkpoints, no look at the test part.
"""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from recsys.core.events import Event, Listener, PointLogged, StepDone
from recsys.embeddings.backend import pick_backend
from recsys.embeddings.fbgemm_table import supports
from recsys.embeddings.memory import check_memory, free_memory_bytes
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Backend
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.engine.checkpoint import Checkpoints, LoopState, Trained
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.machine import keep_freed_memory, pick_device
from recsys.training.engine.ranks import World
from recsys.training.engine.warm_start import open_earlier, start_from
from recsys.training.families.family import FittedFamily, FittedJob, Given, Job, OpenedData
from recsys.training.families.registry import family_of
from recsys.training.jobs.fitting import validated

LOG = logging.getLogger(__name__)


class TrialStoppedError(Exception):
    """The trial is not to continue; the search knows why."""


class TrialPrunedError(TrialStoppedError):
    """The trial is worse than what others had at this epoch."""


class TrialData(Protocol):
    """The data of a configuration, for trainings with other settings of the model.

    backend: the kernel of the table that trials have; None of models without one.
    """

    backend: Backend | None

    @property
    def job(self) -> OpenedData:
        """The data that were read."""

    def train(self, config: Any, listeners: tuple[Listener, ...]) -> object:
        """Train under `config`, which differs in SECTIONS of the space alone.

        Raises:
            ConfigError: the settings do not go together, or do not fit the machine.
            NumericalError: a loss was not finite.
            Terminated: a signal came.
        """


def trial_data(config: ExperimentConfig, backend: Backend | None = None) -> TrialData:
    """Read the data of a search.

    Args:
        config: the experiment.
        backend: the kernel of the table that trials before had; None: it is settled here.

    Raises:
        UserError: the configuration or the data are wrong.
    """
    family = family_of(config)
    if isinstance(family, FittedFamily):
        return FittedTrials(config, family)
    assert isinstance(config, LearnedExperiment)
    return LearnedTrials(config, backend)


class FittedTrials:
    """Those of a model that counts and solves: one fit a trial; see `TrialData`."""

    def __init__(self, config: ExperimentConfig, family: FittedFamily[Any]) -> None:
        keep_freed_memory()
        self.job: FittedJob = family.open(config, Given())
        self.backend: Backend | None = None

    def train(self, config: Any, listeners: tuple[Listener, ...]) -> object:
        """Fit and validate; the only epoch's metrics go to the listeners."""
        gc.collect()
        job = self.job.under(config)
        return validated(job, job.fit(Path()), listeners)


class LearnedTrials:
    """Those of a model that learns; see `TrialData`.

    backend: the kernel of the table that trials before had; None: it is settled here.

    Raises:
        UserError: the configuration or the data are wrong.
    """

    def __init__(
        self,
        config: LearnedExperiment,
        backend: Backend | None = None,
    ) -> None:
        keep_freed_memory()
        # Before the first trial: what this process frees later is not free for others to see.
        self.free_bytes = free_memory_bytes()
        check_memory(config.embedding, self.free_bytes)
        world, earlier = World(device=pick_device(config.training.device)), open_earlier(config)
        family: Any = family_of(config)
        self.job: Job = family.open(config, Given(world, earlier))
        # Kernels agree to the last digits alone, which a training makes larger: one for all trials.
        self.backend: Backend | None = backend or self._settled(config, world)

    def _settled(self, config: LearnedExperiment, world: World) -> Backend:
        choice = pick_backend(
            config.embedding,
            EmbeddingPlan.of(config.embedding, self.job.layouts),
            batch_size=config.training.batch_size,
            device=world.device,
        )
        LOG.info(f"table kernel: {choice}")
        return choice.backend

    def task(self, config: LearnedExperiment) -> Task[Any]:
        """Return what is trained under `config`, which differs in SECTIONS of the space alone."""
        backend = self.backend if supports(config.embedding) else "torch"
        table = config.embedding.model_copy(update={"backend": backend})
        return self.job.under(config.model_copy(update={"embedding": table})).task()

    def train(self, config: LearnedExperiment, listeners: tuple[Listener, ...]) -> LoopState:
        """Train under `config`; return the loop's state at the end.

        Raises:
            ConfigError: the settings do not go together, or the table does not fit.
            NumericalError: a loss was not finite.
            Terminated: a signal came.
        """
        gc.collect()
        copies = int(config.training.average_epochs > 0)
        check_memory(config.embedding, self.free_bytes, copies=copies)
        task = self.task(config)
        earlier = self.job.given.earlier
        if earlier is not None:
            start_from(earlier, config, task.trained.model, task.trained.table)
        return fit(task, config.training, _NoCheckpoints(Path()), listeners)


class Watcher:
    """Collects the metric of each epoch, and ends a trial that `report` or the clock end.

    Args:
        metric: name of the validation metric.
        epochs: of the whole training; nothing is pruned at the last one.
        report: takes an epoch (from 1 on) and its value; returns whether to prune.
        deadline: when the trial has to stop (`time.monotonic`), None: it runs to its end.
        check: raises where a signal came that no other code has acted on.
    """

    def __init__(
        self,
        metric: str,
        epochs: int,
        report: Callable[[int, float], bool],
        deadline: float | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.metric, self.epochs, self.report, self.deadline = metric, epochs, report, deadline
        self.check = check
        self.best: float | None = None
        self.started = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Look at the clock and for signals at each step; report an epoch when it is validated."""
        if isinstance(event, StepDone):
            self.check()
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise TrialStoppedError
        elif isinstance(event, PointLogged):
            self._report(event.values)

    def _report(self, point: Mapping[str, float]) -> None:
        value = point.get(f"validation/{self.metric}")
        if value is None:
            return
        epoch = int(point["epoch"]) + 1
        self.best = value if self.best is None else max(self.best, value)
        if self.report(epoch, value) and epoch < self.epochs:
            raise TrialPrunedError

    @property
    def seconds(self) -> float:
        """The duration so far."""
        return time.monotonic() - self.started


class _NoCheckpoints(Checkpoints):
    """Keeps nothing: a trial is evaluated by its numbers, and begins again where it was cut off."""

    def save(self, trained: Trained, state: LoopState) -> Path:
        return self.folder

    def load(self, trained: Trained, step: int) -> LoopState:
        return LoopState()

    def load_latest(self, trained: Trained) -> LoopState | None:
        return None


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a trial was too large for the machine."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
