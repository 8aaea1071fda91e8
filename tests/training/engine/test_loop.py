"""The loop on a toy task: learns, stops early, survives kills with the same bits, refuses NaN."""

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys.core.errors import IntegrityError, NumericalError
from recsys.core.events import Event, PointLogged, StepDone
from recsys.core.signals import Terminated, ending_signals
from recsys.embeddings.backend import build_table
from recsys.embeddings.table import TableConfig
from recsys.training.config.sections import TrainingConfig
from recsys.training.engine.checkpoint import Checkpoints, LoopState, Trained
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.optim import build_optimizer, warm_up

STEPS = 6


class Rows:
    """A batch: the numbers of its rows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)


def toy_task(poison_at: int | None = None) -> Task[Rows]:
    """Learn to tell odd from even rows of a small table, with dropout in between."""
    torch.manual_seed(1)
    table = build_table(
        TableConfig(num_rows=16, dim=4, backend="torch"), device=torch.device("cpu"), seed=0
    )
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 1))
    optimizer = build_optimizer(model, learning_rate=0.01, weight_decay=0.1)

    def logits(rows: Tensor) -> Tensor:
        return model(table(rows, torch.arange(len(rows) + 1))).squeeze(1)

    def batches(epoch: int, first: int) -> Iterator[Rows]:
        for step in range(first, STEPS):
            generator = torch.Generator().manual_seed(epoch * STEPS + step)
            yield Rows(torch.randint(0, 16, (32,), generator=generator))

    def loss(batch: Rows) -> Tensor:
        target = (batch.rows % 2).float()
        value = nn.functional.binary_cross_entropy_with_logits(logits(batch.rows), target)
        if poison_at is not None and loss.calls == poison_at:  # type: ignore[attr-defined]
            value = value * torch.nan
        loss.calls += 1  # type: ignore[attr-defined]
        return value

    loss.calls = 0  # type: ignore[attr-defined]

    def validate() -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            rows = torch.arange(16)
            right = (logits(rows) > 0) == (rows % 2 == 1)
        return {"accuracy": float(right.float().mean())}

    return Task(
        trained=Trained(model, table, optimizer),
        num_steps=STEPS,
        batches=batches,
        loss=loss,
        validate=validate,
        describe=lambda batch: f"rows {batch.rows[:2].tolist()}",
    )


def config(**changes: object) -> TrainingConfig:
    values = {"metric": "accuracy", "epochs": 8, "patience": 8, "checkpoint_every": 4}
    return TrainingConfig.model_validate({**values, **changes})


def bits(task: Task[Rows]) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in task.trained.tensors().items()}


def test_the_loop_learns(tmp_path: Path) -> None:
    task = toy_task()
    state = fit(task, config(epochs=30, patience=30), Checkpoints(tmp_path))
    assert state.best_metric == 1.0
    assert task.validate()["accuracy"] == 1.0  # the best weights are back in the model


class KillAt:
    """Stops the process's training as a crash would: after a step, without a checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 4, 5, 6, 7, 17, 24])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, step: int) -> None:
    whole = toy_task()
    expected = fit(whole, config(epochs=4), Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(toy_task(), config(epochs=4), Checkpoints(tmp_path / "cut"), (KillAt(step),))
    resumed = toy_task()
    state = fit(resumed, config(epochs=4), Checkpoints(tmp_path / "cut"))
    assert bits(resumed) == bits(whole)
    plain = [[p for p in s.history if "examples_per_second" not in p] for s in (state, expected)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_writes_a_checkpoint_and_exits_with_its_code(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    class Terminate(KillAt):
        def __call__(self, event: Event) -> None:
            if isinstance(event, StepDone) and event.global_step == self.step:
                os.kill(os.getpid(), number)

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Terminated) as stopped:
        fit(toy_task(), config(), checkpoints, (Terminate(9),))
    assert stopped.value.code == code
    assert checkpoints.steps()[-1] == 9
    assert signal.getsignal(number) == signal.SIG_DFL


def test_the_same_request_twice_writes_its_checkpoint(tmp_path: Path) -> None:
    class Twice(KillAt):
        def __call__(self, event: Event) -> None:
            if isinstance(event, StepDone) and event.global_step == self.step:
                for _ in range(2):  # as `timeout` does
                    os.kill(os.getpid(), signal.SIGTERM)

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Terminated):
        fit(toy_task(), config(), checkpoints, (Twice(9),))
    assert checkpoints.steps()[-1] == 9


def test_a_signal_in_the_last_validation_is_not_lost(tmp_path: Path) -> None:
    task = toy_task()

    def validate() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return task.validate()

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Terminated):
        fit(replace(task, validate=validate), config(epochs=1), checkpoints)
    state = checkpoints.load_latest(task.trained)
    assert state is not None
    assert state.epoch == 1


def test_a_hang_up_that_nohup_ignores_ends_nothing(tmp_path: Path) -> None:
    class HangUp(KillAt):
        def __call__(self, event: Event) -> None:
            if isinstance(event, StepDone) and event.global_step == self.step:
                os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        state = fit(toy_task(), config(epochs=2), Checkpoints(tmp_path), (HangUp(9),))
        assert signal.SIGHUP not in ending_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert state.finished
    assert signal.SIGHUP in ending_signals()


def test_sigkill_in_the_middle_of_saving_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """Kill a process that does nothing but save, at random moments; what stands must load."""
    program = f"""
        import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from pathlib import Path
        from test_loop import toy_task
        from recsys.training.engine.checkpoint import Checkpoints, LoopState
        task = toy_task()
        print("ready", flush=True)
        for step in range(100_000):
            Checkpoints(Path({str(tmp_path)!r})).save(task.trained, LoopState(global_step=step))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(200):
        if Checkpoints(tmp_path).steps():
            break
        process.poll()
        signal.sigtimedwait([], 0.01)
    process.kill()
    process.wait()
    process.stdout.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps()
    for step in checkpoints.steps():
        assert checkpoints.load(toy_task().trained, step).global_step == step


def test_a_loss_that_is_not_finite_stops_before_it_spoils_anything(tmp_path: Path) -> None:
    task = toy_task(poison_at=10)
    with pytest.raises(NumericalError, match=r"step 11 \(epoch 2\) is nan; rows \["):
        fit(task, config(), Checkpoints(tmp_path))
    assert all(torch.isfinite(tensor).all() for tensor in task.trained.tensors().values())
    assert Checkpoints(tmp_path).steps()[-1] == 8


def test_patience_ends_training_and_the_best_comes_back(tmp_path: Path) -> None:
    task = toy_task()
    scores = iter([0.2, 0.9, 0.5, 0.4, 0.3])
    task = Task(**{**vars(task), "validate": lambda: {"accuracy": next(scores)}})
    state = fit(task, config(patience=2, warmup_steps=0), Checkpoints(tmp_path))
    assert (state.epoch, state.best_metric, state.best_step) == (4, 0.9, 2 * STEPS)
    assert Checkpoints(tmp_path).steps() == [12, 20, 24]  # the best and the last two
    best = toy_task()
    fit(best, config(epochs=2, warmup_steps=0), Checkpoints(tmp_path / "two"))
    latest = Checkpoints(tmp_path / "two")
    latest.load(best.trained, 2 * STEPS)  # as after two epochs, whichever was better
    assert bits(task) == bits(best)


def test_as_good_as_the_best_is_not_better_and_epochs_end_training(tmp_path: Path) -> None:
    task = toy_task()
    scores = iter([0.5, 0.5, 0.5, 0.6, 0.6, 0.6])
    task = Task(**{**vars(task), "validate": lambda: {"accuracy": next(scores)}})
    state = fit(task, config(patience=3, epochs=5), Checkpoints(tmp_path))
    assert (state.epoch, state.best_step, state.bad_evaluations) == (5, 4 * STEPS, 1)


class Watch(KillAt):
    """Notes the learning rate and the loss of each step, and the curve."""

    def __init__(self, task: Task[Rows]) -> None:
        self.task = task
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.curve: list[float] = []
        self.epochs: list[dict[str, float]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, PointLogged):
            self._point(dict(event.values))
        if not isinstance(event, StepDone):
            return
        assert self.task.trained.model.training  # validation leaves the model in evaluation mode
        self.losses.append(event.loss)
        self.rates.append(self.task.trained.optimizer.param_groups[1]["lr"])

    def _point(self, point: dict[str, float]) -> None:
        if "loss" in point:
            self.curve.append(point["loss"])
        if "epoch_loss" in point:
            self.epochs.append(point)


def test_the_rate_warms_up_and_the_curve_is_of_the_steps_since_its_last_point(
    tmp_path: Path,
) -> None:
    task = toy_task()
    watch = Watch(task)
    settings = config(epochs=7, learning_rate=0.5, warmup_steps=4)
    fit(task, settings, Checkpoints(tmp_path), (watch,))
    assert watch.rates == [0.125, 0.25, 0.375, *[0.5] * (7 * STEPS - 3)]
    expected = [sum(watch.losses[start : start + 20]) / 20 for start in (0, 20)]
    assert watch.curve == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "warm"), [(7, 4), (1, 0), (2, 1)])
def test_the_warm_up_is_a_tenth_of_all_steps_at_most(
    tmp_path: Path, epochs: int, warm: int
) -> None:
    """Of 42, 6 and 12 steps these are 4, 0 and 1; the configured 1,000 would never end."""
    watch = Watch(task := toy_task())
    settings = config(epochs=epochs, learning_rate=0.5, warmup_steps=1000)
    fit(task, settings, Checkpoints(tmp_path), (watch,))
    rising = [0.5 * (step + 1) / warm for step in range(warm)]
    assert watch.rates == [*rising, *[0.5] * (epochs * STEPS - warm)]


@pytest.mark.parametrize("validated", [True, False])
def test_each_epoch_ends_with_the_mean_loss_of_all_its_examples(
    tmp_path: Path, validated: bool
) -> None:
    task = toy_task()
    sizes = [32, 32, 32, 32, 32, 8]  # a short last batch counts for less
    task = Task(
        **{
            **vars(task),
            "batches": lambda epoch, first: (
                Rows(torch.arange(size) % 16) for size in sizes[first:]
            ),
            **({} if validated else {"validate": dict}),
        }
    )
    watch = Watch(task)
    fit(task, config(epochs=3), Checkpoints(tmp_path), (watch,))
    assert [point["epoch"] for point in watch.epochs] == [0, 1, 2]
    assert [point["step"] for point in watch.epochs] == [STEPS, 2 * STEPS, 3 * STEPS]
    of_epoch = [watch.losses[start : start + STEPS] for start in (0, STEPS, 2 * STEPS)]
    expected = [
        sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        for losses in of_epoch
    ]
    assert [point["epoch_loss"] for point in watch.epochs] == pytest.approx(expected)
    assert [("validation/accuracy" in point) for point in watch.epochs] == [validated] * 3


def test_parts_of_the_loss_join_the_points_of_the_curve(tmp_path: Path) -> None:
    task = toy_task()
    task = Task(**{**vars(task), "parts": lambda: {"loss/a": float(task.loss.calls)}})  # type: ignore[attr-defined]
    state = fit(task, config(epochs=7), Checkpoints(tmp_path))
    points = [point for point in state.history if "loss" in point]
    assert [point["loss/a"] for point in points] == [20.0, 40.0]


def test_a_steep_loss_moves_the_weights_no_further_than_the_clipped_norm(tmp_path: Path) -> None:
    task = toy_task()
    steep = {
        "trained": Trained(
            task.trained.model,
            task.trained.table,
            torch.optim.SGD(task.trained.model.parameters(), lr=1.0),
        ),
        "loss": lambda batch: 1e6 * task.loss(batch),
        "num_steps": 1,
        "batches": lambda epoch, first: (Rows(torch.arange(16)) for _ in range(first, 1)),
    }
    before = nn.utils.parameters_to_vector(task.trained.model.parameters()).detach().clone()
    settings = config(epochs=1, learning_rate=1.0, warmup_steps=0, clip_norm=0.25)
    fit(Task(**{**vars(task), **steep}), settings, Checkpoints(tmp_path))
    after = nn.utils.parameters_to_vector(task.trained.model.parameters()).detach()
    assert float((after - before).norm()) == pytest.approx(0.25, rel=1e-4)


def test_a_flipped_bit_or_a_cut_of_any_file_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(toy_task().trained, LoopState(global_step=3))
    files = sorted(one for one in path.rglob("*") if one.is_file())
    assert {one.name for one in files} >= {"files.json", "state.json", "tensors.safetensors"}
    rng = random.Random(0)
    for file in files:
        whole = file.read_bytes()
        spoilt = [whole[:-5], b""]
        for _ in range(20):
            flipped = bytearray(whole)
            flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            spoilt.append(bytes(flipped))
        for data in spoilt:
            file.write_bytes(data)
            with pytest.raises(IntegrityError, match=re.escape(str(path))):
                checkpoints.load_latest(toy_task().trained)
        file.write_bytes(whole)
    (path / "more").write_text("")
    with pytest.raises(IntegrityError, match="more: not a file of this checkpoint"):
        checkpoints.load_latest(toy_task().trained)


def test_the_checkpoint_before_a_damaged_one_continues_to_the_same_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, damaged = toy_task(), toy_task()
    fit(whole, config(), Checkpoints(tmp_path / "whole"))
    checkpoints = Checkpoints(tmp_path / "damaged")
    with pytest.raises(KeyboardInterrupt):
        fit(damaged, config(), checkpoints, (KillAt(19),))
    steps = checkpoints.steps()
    assert steps == [6, 16, 18]  # the best one, and the last two
    table = next((tmp_path / "damaged" / f"step-{steps[-1]:09d}" / "table").iterdir())
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    again = toy_task()
    fit(again, config(), checkpoints)
    assert "continuing from the checkpoint before" in caplog.text
    assert bits(again) == bits(whole)


def test_a_checkpoint_that_could_not_be_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(toy_task().trained, LoopState(global_step=3))

    def full_disk(folder: Path) -> None:
        raise OSError(28, f"No space left on device: {folder}")

    monkeypatch.setattr("recsys.core.atomic.sync", full_disk)  # the flush comes before the name
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(toy_task().trained, LoopState(global_step=4))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]


def test_every_parameter_is_in_one_group_and_biases_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    groups = build_optimizer(model, learning_rate=0.1, weight_decay=0.5).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [warm_up(step, 4) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0


def test_with_nothing_to_validate_on_the_last_epoch_is_kept(tmp_path: Path) -> None:
    task = toy_task()
    task = Task(**{**vars(task), "validate": dict})
    state = fit(task, config(epochs=3, patience=1, warmup_steps=0), Checkpoints(tmp_path))
    assert (state.epoch, state.best_step, state.best_metric) == (3, 3 * STEPS, None)
    evaluated = toy_task()
    fit(
        evaluated, config(epochs=3, patience=3, warmup_steps=0), Checkpoints(tmp_path / "evaluated")
    )
    Checkpoints(tmp_path / "evaluated").load(evaluated.trained, 3 * STEPS)
    assert bits(task) == bits(evaluated)
