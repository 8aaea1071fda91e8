"""The two-tower task: its loss by definition, its ranking by plain sorting, its settings."""

import numpy as np
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.data.batch import PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.features.encoding.hashing import UNKNOWN_HASH
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.loop import Task
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import evaluate
from recsys.training.families.retrieval.validation import rank_with
from recsys.training.families.two_tower.loss import loss_of
from recsys.training.families.two_tower.task import two_tower_task


@pytest.fixture(scope="module")
def queries(dataset: Dataset) -> Queries:
    return build_queries(
        dataset, VALIDATION, history_length=3, filter_seen=True, limit=10_000, seed=0
    )


@pytest.fixture
def task(config: ExperimentConfig, dataset: Dataset, queries: Queries) -> Task[PairBatch]:
    changes = {"id_dropout": 0.5, "weight_decay": 0.25, "precision": "float32"}
    training = config.training.model_copy(update=changes)
    return two_tower_task(
        config.model_copy(update={"training": training}), dataset, queries, World()
    )


def model_of(task: Task[PairBatch]) -> TwoTower:
    assert isinstance(task.trained.model, TwoTower)
    return task.trained.model


@pytest.mark.parametrize("corrected", [True, False])
def test_the_loss_is_a_softmax_of_cosines_over_the_temperature(
    task: Task[PairBatch], config: ExperimentConfig, corrected: bool
) -> None:
    model, batch = model_of(task).eval(), next(task.batches(0, 0))
    training = config.training.model_copy(update={"logq_correction": corrected})
    with torch.no_grad():
        query, candidate = model(batch)
        loss = float(loss_of(query, candidate, batch, model, training, 120))
    total = 0.0
    for row, positive in enumerate(batch.positive.tolist()):
        logits = (candidate @ query[row]) / model.config.temperature
        if corrected:
            others = torch.arange(len(candidate)) != positive
            logits[others] -= batch.log_inclusion[others]
        total += float(logits.logsumexp(0) - logits[positive])
    assert bool((batch.weight == 1).all())
    assert loss == pytest.approx(total / len(batch), rel=1e-4)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_ranking_leaves_out_all_that_was_seen_and_not_just_the_models_history(
    task: Task[PairBatch], dataset: Dataset, queries: Queries, filter_seen: bool
) -> None:
    model = model_of(task)
    top = rank_with(model, dataset, queries, 10, filter_seen)
    assert model.training  # what it borrowed it gives back
    assert torch.equal(rank_with(model, dataset, queries, 10, filter_seen), top)  # no dropout
    model.eval()
    with torch.no_grad():
        items = model.encode_items(dataset.items)
        asked = model.encode_queries(queries.block, items, queries.history)
        scores = asked @ items.T
    for query, line in enumerate(scores):
        if filter_seen:
            seen = queries.seen
            line[seen.values[seen.offsets[query] : seen.offsets[query + 1]]] = -torch.inf
        torch.testing.assert_close(line[top[query]], line.sort(descending=True).values[:10])


def test_validation_is_evaluation_on_the_validation_queries(
    task: Task[PairBatch], config: ExperimentConfig, dataset: Dataset, queries: Queries
) -> None:
    def rank(asked: Queries, k: int) -> np.ndarray:  # type: ignore[type-arg]
        return rank_with(model_of(task), dataset, asked, k, True).numpy()

    settings = config.evaluation
    found = evaluate(dataset, queries, {"model": rank}, settings, protocol={}, seed=0)
    metrics = found.results["model"].metrics
    validated = task.validate()
    assert config.training.metric in validated
    seen_without_ranking = {"rankme", "uniformity", "alignment", "twins", "temperature"}
    assert seen_without_ranking <= set(validated)
    ranked = set(validated) - seen_without_ranking
    assert {name: validated[name] for name in ranked} == {name: metrics[name] for name in ranked}


def test_settings_arrive_where_they_act(task: Task[PairBatch], dataset: Dataset) -> None:
    assert [group["weight_decay"] for group in task.trained.optimizer.param_groups] == [0.25, 0.0]
    batch = next(task.batches(0, 0))
    for block, side in ((batch.items, "items"), (batch.query, "users")):
        column = dataset.encoder.id_columns(side)[0]  # type: ignore[arg-type]
        dropped = (block.single[:, column] == int(UNKNOWN_HASH)).float().mean()
        assert 0.3 < float(dropped) < 0.7


def test_a_bad_batch_is_named_by_its_rows_and_columns(
    task: Task[PairBatch], dataset: Dataset
) -> None:
    batch = next(task.batches(0, 0))
    rows = dataset.tables.events.row[batch.examples[:2].numpy()] + 1
    assert f"are rows {rows[0]}, {rows[1]}, " in task.describe(batch)
    assert task.describe(batch).endswith("all inputs are finite")
    batch.items.dense[3, 0] = torch.nan
    name = dataset.encoder.layout("items").dense[0]
    assert task.describe(batch).endswith(f"not finite in the data: {name}")


def test_batch_statistics_over_ranks_that_share_items_are_refused(
    config: ExperimentConfig, dataset: Dataset
) -> None:
    model = config.model.model_copy(update={"norm": "batch"})
    batch = config.model_copy(update={"model": model})
    with pytest.raises(ConfigError, match=r"model\.norm: batch .* set layer or none"):
        two_tower_task(batch, dataset, None, World(rank=0, size=2))  # type: ignore[arg-type]
