"""What is said while a model trains: the metric that decides, and steps that are too few."""

from dataclasses import replace

import pytest

from recsys.core.events import PointLogged, StepDone
from recsys.training.config.sections import TrainingConfig
from recsys.training.engine.checkpoint import LoopState
from recsys.training.jobs.train import doubts, still_rising
from recsys.training.tracking.progress import Progress


@pytest.mark.parametrize("metric", ["ndcg_at_10", "ndcg_at_20"])
def test_the_metric_that_decides_is_in_the_line_of_an_epoch(
    metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    point = {"epoch": 0.0, "epoch_loss": 1.5}
    point |= {"validation/ndcg_at_10": 0.25, "validation/ndcg_at_20": 0.5}
    with Progress(3, metric=metric, quiet=False) as progress:
        progress(PointLogged({**point, "validation/rankme": 7.0}))
        progress(PointLogged({"epoch": 1.0, "loss": 2.0}))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 1  loss 1.5000  ")
    assert ("ndcg_at_10 0.2500" in line) is (metric == "ndcg_at_10")
    assert "ndcg_at_20 0.5000" in line
    assert "rankme" not in line


def test_of_a_ranker_all_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"auc": 0.75, "log_loss": 0.5, "auc_bought": 0.625}
    with Progress(3, metric="auc", quiet=False) as progress:
        point = {f"validation/{name}": value for name, value in found.items()}
        progress(PointLogged({"epoch": 0.0, "epoch_loss": 1.5, **point}))
    (line,) = capsys.readouterr().err.splitlines()
    assert "auc 0.7500  log_loss 0.5000  auc_bought 0.6250  " in line


def test_an_epoch_without_a_validation_part_has_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress(3, metric="ndcg_at_20", quiet=False) as progress:
        progress(StepDone(0, 7, 7, 7, 9.0, 1234.0))
        progress(PointLogged({"epoch": 0.0, "epoch_loss": 1.5}))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "epoch 1  loss 1.5000  1,234 examples/s  0 s so far"


def test_the_bar_is_gone_after_an_epoch_until_the_next_one_starts() -> None:
    with Progress(2, metric="ndcg_at_20", quiet=False) as progress:
        (task,) = progress.bar.tasks
        progress(StepDone(0, 7, 7, 7, 9.0, 1234.0))
        assert task.visible
        progress(PointLogged({"epoch": 0.0, "epoch_loss": 1.5}))
        assert not task.visible  # nothing trains while the model is evaluated
        progress(StepDone(1, 1, 7, 8, 9.0, 1234.0))
        assert task.visible


def test_steps_are_counted_and_what_is_hardly_meant_is_said() -> None:
    usual = TrainingConfig(metric="auc", epochs=10, average_epochs=1.0)
    assert not list(doubts(15_000, usual))
    (few,) = doubts(20, usual)
    assert (
        "20 steps are few to train a model: set a smaller training.batch_size (it is 1,024)" in few
    )
    (long,) = doubts(4500, TrainingConfig(metric="auc", epochs=3, average_epochs=2.0))
    assert "training.average_epochs: 2 of 3 epochs includes much of the first" in long


def test_a_curve_that_still_rose_at_the_end_is_said() -> None:
    training = TrainingConfig(metric="auc", epochs=3, patience=2)
    history = [{"step": 5.0 * n, "validation/auc": 0.6 + 0.0125 * n} for n in (1, 2, 3)]
    rising = LoopState(epoch=3, global_step=15, best_step=15, history=history)
    (line,) = still_rising(rising, training)
    assert "validation auc was still rising by 0.0125 in the last of 3 epochs" in line
    assert "ends by itself after 2 epochs without a better one" in line
    assert not list(still_rising(replace(rising, best_step=10), training))
    assert not list(still_rising(replace(rising, epoch=2), training))  # out of patience
    assert not list(still_rising(replace(rising, best_step=None), training))
