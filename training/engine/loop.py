"""The training loop: it knows no model by name. Step function in, metrics out.

Batch order and every random number of a step are functions of (seed, epoch, step), so a run
that was stopped and resumed ends with the same bits as one that was not.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from recsys.core.errors import NumericalError
from recsys.core.events import Listener, PointLogged, StepDone
from recsys.core.signals import Terminated, ending_signals, handled, requests
from recsys.training.config.sections import TrainingConfig
from recsys.training.engine.averaging import WeightAverage
from recsys.training.engine.checkpoint import Checkpoints, LoopState, Trained
from recsys.training.engine.machine import seed_generators
from recsys.training.engine.optim import decay, warm_up
from recsys.training.engine.ranks import ALONE, LOST_PEER, LostPeerError, World, peer_is_lost

LOG_EVERY = 20
"""Steps between two points of the loss curve."""
EPOCH_LOSS = "epoch_loss"
"""Name of an epoch's mean loss; each epoch ends with one point that has it."""


class Batch(Protocol):
    """Anything with a length, the number of its examples."""

    def __len__(self) -> int:
        """Number of examples."""


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Task(Generic[B]):
    """What is trained: how to draw batches, what to minimise, how to evaluate.

    loss: a batch to a scalar, in training mode; of several ranks, its share of the mean.
    validate: metrics of the current model; empty where there is nothing to validate on, and
    the last epoch is kept. describe: names the rows and features of a
    batch whose loss is not finite. parts: what the last loss was made of, by name, where it is a
    sum of several; and what they weigh.
    """

    trained: Trained
    num_steps: int
    batches: Callable[[int, int], Iterator[B]]
    loss: Callable[[B], Tensor]
    validate: Callable[[], dict[str, float]]
    describe: Callable[[B], str]
    parts: Callable[[], dict[str, float]] = dict


def fit(
    task: Task[B],
    config: TrainingConfig,
    checkpoints: Checkpoints,
    listeners: tuple[Listener, ...] = (),
    world: World = ALONE,
) -> LoopState:
    """Train until the last epoch or until `patience` evaluations brought nothing better.

    Resumes from the newest checkpoint where there is one. On return the model holds the
    weights of the best evaluation, averaged where `config.average_epochs` is set. Of several
    ranks all call this at once, each with its share of the batches and of the loss; they stop at
    the same step.

    Raises:
        NumericalError: a loss was not finite; the last checkpoint is kept.
        Terminated: a signal ended the run after the current step.
    """
    task = _averaging(task, config)
    state = checkpoints.load_latest(task.trained) or LoopState()
    with _signals(world) as received:
        try:
            while not state.finished:
                _epoch(task, config, checkpoints, listeners, state, received, world)
            if received and world.size == 1:  # it came in the last validation
                raise Terminated(128 + received[0])
        except RuntimeError as error:
            if not (received and peer_is_lost(error)):
                raise
            raise SystemExit(LOST_PEER) from None  # the sender of the signal ends all ranks
    if state.best_step is not None:
        checkpoints.load(task.trained, state.best_step)
    if task.trained.average is not None:
        task.trained.average.put(task.trained.model, task.trained.table)
    return state


def _averaging(task: Task[B], config: TrainingConfig) -> Task[B]:
    """Return the task with an average of its weights, where that is asked for."""
    if not config.average_epochs:
        return task
    trained = task.trained
    average = WeightAverage(trained.model, trained.table, config.average_epochs, task.num_steps)
    return replace(task, trained=replace(trained, average=average))


def _epoch(
    task: Task[B],
    config: TrainingConfig,
    checkpoints: Checkpoints,
    listeners: tuple[Listener, ...],
    state: LoopState,
    received: list[int],
    world: World,
) -> None:
    clock, trained = _Clock(), task.trained
    for batch in task.batches(state.epoch, state.step):
        loss, examples, stop = _step(task, config, state, batch, received, world)
        state.step += 1
        state.global_step += 1
        state.running_loss += loss * examples
        state.running_weight += examples
        state.epoch_loss += loss * examples
        state.epoch_weight += examples
        average = trained.average
        if average is not None and state.global_step % average.every == 0:
            average.update(trained.model, trained.table)
        rate = clock.tick(examples)
        done = StepDone(state.epoch, state.step, task.num_steps, state.global_step, loss, rate)
        for listener in listeners:
            listener(done)
        if state.global_step % LOG_EVERY == 0:
            point = _mean_loss(state) | task.parts() | {"examples_per_second": rate}
            _log(state, listeners, point)
        if stop or (received and world.size == 1):  # ranks have to agree, which takes a step
            checkpoints.save(task.trained, state)
            raise Terminated(128 + (received or [signal.SIGTERM])[0])
        if state.global_step % config.checkpoint_every == 0 and state.step < task.num_steps:
            checkpoints.save(task.trained, state)
    metrics = _validated(task)
    point = {f"validation/{name}": value for name, value in metrics.items()}
    _log(state, listeners, _epoch_mean_loss(state) | point)
    state.epoch, state.step = state.epoch + 1, 0
    _update_best(config, state, metrics[config.metric] if metrics else None)
    checkpoints.save(task.trained, state)


def _validated(task: Task[B]) -> dict[str, float]:
    """Evaluate the weights that would be kept now."""
    trained = task.trained
    if trained.average is None:
        return task.validate()
    with trained.average.shown(trained.model, trained.table):
        return task.validate()


def _step(
    task: Task[B],
    config: TrainingConfig,
    state: LoopState,
    batch: B,
    received: list[int],
    world: World,
) -> tuple[float, int, bool]:
    """One optimizer step; returns the loss, the examples, and whether a rank is asked to stop."""
    trained = task.trained
    # On a small log the warm-up must not be most of the training.
    all_steps = task.num_steps * config.epochs
    warmup_steps = min(config.warmup_steps, all_steps // 10)
    factor = decay(config.schedule, state.global_step, all_steps)
    if config.schedule != "constant":
        trained.table.scale_learning_rate(factor)
    factor *= warm_up(state.global_step, warmup_steps)
    for group in trained.optimizer.param_groups:
        group["lr"] = config.learning_rate * factor
    seed_generators(_step_seed(config.seed, state.global_step, world.rank))
    trained.model.train()
    loss = task.loss(batch)
    own = float(loss.detach())
    value, examples, stop = world.sum(own, len(batch), len(received))
    # Before the backward pass: the table's update is part of it.
    if not math.isfinite(value):
        if math.isfinite(own):
            raise LostPeerError
        raise NumericalError(
            f"the loss of step {state.global_step + 1} (epoch {state.epoch + 1}) is {value}; "
            f"{task.describe(batch)}; lower training.learning_rate and embedding.learning_rate "
            "and train again (an earlier checkpoint is kept)"
        )
    trained.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    world.sum_gradients(trained.model)
    torch.nn.utils.clip_grad_norm_(trained.model.parameters(), config.clip_norm)
    trained.optimizer.step()
    return value, int(examples), stop > 0


def _update_best(config: TrainingConfig, state: LoopState, metric: float | None) -> None:
    """Best so far? Out of patience? Out of epochs? Without a validation the last is the best."""
    if metric is None or state.best_metric is None or metric > state.best_metric:
        state.best_metric, state.best_step, state.bad_evaluations = metric, state.global_step, 0
    else:
        state.bad_evaluations += 1
    state.finished = state.bad_evaluations >= config.patience or state.epoch >= config.epochs


def _log(state: LoopState, listeners: tuple[Listener, ...], values: dict[str, float]) -> None:
    point = {"step": float(state.global_step), "epoch": float(state.epoch), **values}
    state.history.append(point)
    for listener in listeners:
        listener(PointLogged(point))


def _mean_loss(state: LoopState) -> dict[str, float]:
    """Mean loss an example since the last point."""
    mean = state.running_loss / state.running_weight
    state.running_loss = state.running_weight = 0.0
    return {"loss": mean}


def _epoch_mean_loss(state: LoopState) -> dict[str, float]:
    """Mean loss an example of the epoch that ends, over all its steps."""
    mean = state.epoch_loss / state.epoch_weight
    state.epoch_loss = state.epoch_weight = 0.0
    return {EPOCH_LOSS: mean}


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Ranks hold different rows: their dropout must differ as well."""
    return (seed * 1_000_003 + step + rank * 7_919_000_017) % 2**63


class _Clock:
    """Examples a second over the last steps, smoothed."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.rate = 0.0

    def tick(self, examples: int) -> float:
        now = time.perf_counter()
        rate = examples / max(now - self.last, 1e-9)
        self.rate = rate if self.rate == 0 else 0.9 * self.rate + 0.1 * rate
        self.last = now
        return self.rate


@contextmanager
def _signals(world: World) -> Iterator[list[int]]:
    """Collect signals that end a run; one more acts at once. Other threads: no handlers.

    One of several ranks may get the same signal again at any time, from the machine's scheduler
    and from its own agent: there the second one has no meaning, and an agent that loses patience
    kills.
    """
    received: list[int] = []
    with requests() as asked:

        def handle(number: int, _frame: FrameType | None) -> None:
            if asked.is_new() and received and world.size == 1:
                raise Terminated(128 + number)
            received.append(number)

        with handled(ending_signals(), handle):
            yield received
