"""Averaged weights: means by hand, a training that they leave alone, and a resume to the bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys.core.events import Event, StepDone
from recsys.embeddings.backend import build_table
from recsys.embeddings.table import TableConfig
from recsys.training.engine.averaging import WeightAverage
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from tests.training.engine.test_loop import STEPS, KillAt, Rows, config, toy_task


def weights(task: Task[Rows]) -> Tensor:
    """All weights of model and table, in one row."""
    dense = task.trained.model.state_dict().values()
    return torch.cat([t.flatten().clone() for t in (*dense, task.trained.table.weight.detach())])


class Record(KillAt):
    """Keeps the weights after every step."""

    def __init__(self, task: Task[Rows], step: int = -1) -> None:
        super().__init__(step)
        self.task, self.found, self.losses = task, [weights(task)], list[float]()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        self.found.append(weights(self.task))
        self.losses.append(event.loss)
        super().__call__(event)


def test_the_mean_is_even_at_first_and_forgets_later() -> None:
    model = nn.BatchNorm1d(2)  # floats and a count
    table = build_table(
        TableConfig(num_rows=3, dim=4, backend="torch"), device=torch.device("cpu"), seed=0
    )
    average = WeightAverage(model, table, epochs=0.25, num_steps=30)
    assert (average.every, average.share) == (3, 0.4)
    mean = torch.zeros(())
    with torch.no_grad(), average.shown(model, table):
        assert not model.bias.any()  # nothing joined yet: itself
    for number, value in enumerate((2.0, 4.0, 9.0, 1.0, 7.0), start=1):
        for own in (model.weight.data, table.weight):
            own.fill_(value)
        assert model.num_batches_tracked is not None
        model.num_batches_tracked.fill_(number)
        average.update(model, table)
        mean = mean + (value - mean) * max(1 / number, 0.4)
    with average.shown(model, table):
        torch.testing.assert_close(table.weight, mean.expand(3, 4), check_dtype=False)
        torch.testing.assert_close(model.weight.detach(), mean.expand(2))
        assert model.num_batches_tracked == torch.tensor(5)
    assert (model.weight == 7).all()
    assert (table.weight == 7).all()
    average.put(model, table)
    torch.testing.assert_close(table.weight, mean.expand(3, 4))


def test_what_is_evaluated_and_kept_is_the_average_and_training_continues_without_it(
    tmp_path: Path,
) -> None:
    plain = toy_task()
    alone = Record(plain)
    fit(plain, config(epochs=4), Checkpoints(tmp_path / "plain"), (alone,))
    task, evaluated = toy_task(), list[Tensor]()

    def validate() -> dict[str, float]:
        evaluated.append(weights(task))
        return {"accuracy": float(len(evaluated) != 4)}  # the first is the best

    beside = Record(task)
    averaged = replace(task, validate=validate)
    settings = config(epochs=4, average_epochs=0.5)
    state = fit(averaged, settings, Checkpoints(tmp_path / "averaged"), (beside,))
    assert beside.losses == alone.losses
    for one, other in zip(beside.found, alone.found, strict=True):
        assert torch.equal(one, other)
    mean, means = torch.zeros(()), []
    for number, own in enumerate(alone.found[1:], start=1):  # every step: an epoch has but six
        mean = mean + (own - mean) * max(1 / number, 1 / 3)
        means.append(mean)
    for epoch, found in enumerate(evaluated, start=1):
        torch.testing.assert_close(found, means[epoch * STEPS - 1])
    assert state.best_step == STEPS
    torch.testing.assert_close(weights(task), means[STEPS - 1])


@pytest.mark.parametrize("step", [1, 4, 6, 11, 19])
def test_a_killed_run_ends_with_the_same_average(tmp_path: Path, step: int) -> None:
    settings = config(epochs=4, average_epochs=1.5)
    whole = toy_task()
    fit(whole, settings, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(toy_task(), settings, Checkpoints(tmp_path / "cut"), (KillAt(step),))
    resumed = toy_task()
    fit(resumed, settings, Checkpoints(tmp_path / "cut"))
    assert torch.equal(weights(resumed), weights(whole))


def test_an_exchange_is_exact_beyond_a_block_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.training.engine.averaging._ROWS", 2)
    task = toy_task()
    trained = task.trained
    average = WeightAverage(trained.model, trained.table, epochs=1, num_steps=1)
    average.update(trained.model, trained.table)
    before = weights(task)
    for own in (*trained.model.state_dict().values(), trained.table.weight):
        own.add_(torch.rand_like(own))
    after = weights(task)
    with average.shown(trained.model, trained.table):
        assert torch.equal(weights(task), before)
    assert torch.equal(weights(task), after)
