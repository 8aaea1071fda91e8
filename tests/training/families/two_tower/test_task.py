"""The real task under the loop: same bits from run to run, from cut to whole; and it learns."""

from pathlib import Path

import pytest
import torch

from recsys.core.errors import ConfigError, NumericalError
from recsys.core.events import Event, StepDone
from recsys.data.batch import PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.world.world import RetailWorld
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.machine import pick_device
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.retrieval.validation import rank_with
from recsys.training.families.two_tower.task import two_tower_task
from recsys.training.jobs.runs import config_of_run, new_run_dir


@pytest.fixture(scope="module")
def validation(dataset: Dataset) -> Queries:
    return build_queries(
        dataset, VALIDATION, history_length=10, filter_seen=True, limit=100, seed=0
    )


def bits(task: Task[PairBatch]) -> dict[str, bytes]:
    return {name: one.numpy().tobytes() for name, one in task.trained.tensors().items()}


class Stop:
    """Ends a training as a crash would, after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("backend", ["torch", "fbgemm"])
def test_two_threads_give_the_same_bits_run_after_run_and_after_a_resume(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, tmp_path: Path, backend: str
) -> None:
    torch.set_num_threads(2)
    long = config.model.model_copy(update={"history_length": 50})
    table = config.embedding.model_copy(update={"backend": backend})
    # One large batch an epoch: only large sums are split between threads.
    whole = config.training.model_copy(update={"batch_size": 4000, "epochs": 6, "patience": 6})
    config = config.model_copy(update={"model": long, "embedding": table, "training": whole})
    tasks = [two_tower_task(config, dataset, validation, World()) for _ in range(4)]
    fit(tasks[0], config.training, Checkpoints(tmp_path / "a"))
    fit(tasks[1], config.training, Checkpoints(tmp_path / "b"))
    assert bits(tasks[0]) == bits(tasks[1])
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[2], config.training, Checkpoints(tmp_path / "c"), (Stop(4),))
    fit(tasks[3], config.training, Checkpoints(tmp_path / "c"))
    assert bits(tasks[3]) == bits(tasks[0])


def test_training_beats_the_untrained_model(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, tmp_path: Path
) -> None:
    task = two_tower_task(config, dataset, validation, World())
    before = task.validate()["recall_at_20"]
    fit(task, config.training, Checkpoints(tmp_path))
    assert task.validate()["recall_at_20"] > 1.3 * before


def test_a_number_that_is_not_finite_is_traced_to_rows_and_feature(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, tmp_path: Path
) -> None:
    task = two_tower_task(config, dataset, validation, World())
    price = dataset.encoder.layout("items").dense.index("price")
    before = dataset.items.dense[:, price].clone()
    dataset.items.dense[:, price] = torch.nan
    try:
        with pytest.raises(NumericalError, match=r"interactions are rows \d+.*: price"):
            fit(task, config.training, Checkpoints(tmp_path))
    finally:
        dataset.items.dense[:, price] = before


def test_a_finished_run_is_not_trained_again(
    config: ExperimentConfig, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"this run is finished; its bundle is .*{trained.name}"):
        config_of_run(trained.parents[1])
    started = new_run_dir(config.model_copy(update={"output": str(tmp_path)}))
    assert config_of_run(started).training == config.training


def test_devices_that_are_not_here_are_named() -> None:
    with pytest.raises(ConfigError, match=r"training\.device: 'abacus' cannot be used here"):
        pick_device("abacus")
    assert pick_device("cpu") == torch.device("cpu")


def test_nothing_is_learnt_from_noise(tmp_path: Path) -> None:
    """The strongest check for a leak: where choices are random, test recall stays at chance."""
    world = RetailWorld.create(seed=5, users=300, items=200, events=6_000, noise=True)
    files = world.write(tmp_path / "noise")
    path = files.folder / "recsys.yaml"
    path.write_text(world.config_text(files))
    config = load_config(path, ("training.batch_size=512", "training.epochs=3"))
    data = load_data(config)
    asked = {
        part: build_queries(data, part, history_length=50, filter_seen=False, limit=300, seed=0)
        for part in (VALIDATION, TEST)
    }
    task = two_tower_task(config, data, asked[VALIDATION], World())
    fit(task, config.training, Checkpoints(tmp_path / "checkpoints"))
    model = task.trained.model
    assert isinstance(model, TwoTower)
    top = rank_with(model, data, asked[TEST], 20, filter_seen=False)
    recall = ranking_metrics(top, asked[TEST].relevant, (20,))["recall_at_20"]
    deviation = recall.std() / len(recall) ** 0.5
    assert abs(recall.mean() - 20 / 200) < 4 * deviation
