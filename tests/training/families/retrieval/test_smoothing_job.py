"""Item smoothing and several interests in a run: same bits, one bundle, clear refusals."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.events import Event, StepDone
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.pair_sample import sample_pairs
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.interests import search
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.ranks import ALONE, World
from recsys.training.families.load import load_config
from recsys.training.families.two_tower.config import HardNegatives
from recsys.training.families.two_tower.pair_calibrating import pair_scores
from recsys.training.families.two_tower.task import build_two_tower, smoothing_of, two_tower_task
from recsys.training.jobs.train import train

SMOOTHED = ("model.smoothing.rounds=1", "model.dim=16", "training.precision=float32")


@pytest.fixture(scope="module")
def validation(dataset: Dataset) -> Queries:
    return build_queries(dataset, VALIDATION, history_length=10, filter_seen=True, limit=50, seed=0)


@pytest.fixture(scope="module")
def smoothed(world_config: Path, config: ExperimentConfig) -> ExperimentConfig:
    """The small world's configuration with one round of smoothing and two interests."""
    wanted = load_config(world_config, (*SMOOTHED, "model.interests=2", "model.history_length=10"))
    return config.model_copy(update={"model": wanted.model})


class Stop:
    """Ends a training as a crash would, after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.global_step == self.step:
            raise KeyboardInterrupt


def test_the_graph_is_that_of_the_training_rows(
    smoothed: ExperimentConfig, dataset: Dataset
) -> None:
    smoothing = smoothing_of(smoothed, dataset)
    assert smoothing is not None
    graph = smoothing.get_buffer("to_users").to_dense() > 0
    events, rows = dataset.tables.events, dataset.events_of((TRAIN,))
    wanted = torch.zeros(dataset.num_users, dataset.num_items, dtype=torch.bool)
    wanted[events.user_row[rows], events.item_row[rows]] = True
    assert torch.equal(graph, wanted)
    plain = smoothed.model.smoothing.model_copy(update={"rounds": 0})
    model = smoothed.model.model_copy(update={"smoothing": plain})
    assert smoothing_of(smoothed.model_copy(update={"model": model}), dataset) is None


def test_a_killed_run_ends_with_the_same_bits(
    smoothed: ExperimentConfig, dataset: Dataset, validation: Queries, tmp_path: Path
) -> None:
    training = smoothed.training.model_copy(
        update={"examples": "users", "positives": 4, "batch_size": 40, "checkpoint_every": 2}
    )
    config = smoothed.model_copy(update={"training": training})
    tasks = [two_tower_task(config, dataset, validation, World()) for _ in range(3)]
    fit(tasks[0], config.training, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[1], config.training, Checkpoints(tmp_path / "cut"), (Stop(3),))
    fit(tasks[2], config.training, Checkpoints(tmp_path / "cut"))
    whole, resumed = tasks[0].trained.tensors(), tasks[2].trained.tensors()
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_the_index_holds_smoothed_vectors_and_a_new_item_stands_alone(
    world_config: Path, tmp_path: Path
) -> None:
    keys = (
        *SMOOTHED,
        "training.batch_size=512",
        "training.epochs=1",
        "embedding.num_rows=2048",
        "evaluation.bootstrap_samples=10",
        "evaluation.baselines=[]",
        "tracking.enabled=false",
        f"output={tmp_path}",
    )
    result = train(load_config(world_config, keys))
    assert result is not None
    scorer = Scorer.open(result.bundle)  # replays the probe
    stored = load(Bundle.open(result.bundle).read("index/vectors.safetensors"))["vectors"]
    assert torch.equal(stored, scorer.vectors)
    table = pq.read_table(result.bundle / "items.parquet")
    with torch.no_grad():
        alone = scorer.model.encode_items(scorer.encoder.encode("items", table))
    count = torch.tensor(table.column("train_count").to_pylist())
    differs = (alone - stored).abs().amax(1) > 1e-3
    assert bool(differs[count > 0].all())
    torch.testing.assert_close(alone[count == 0], stored[count == 0])
    assert not any("smoothing" in name for name in scorer.model.state_dict())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.negative_items=trained"], "model.smoothing has the whole catalogue"),
        (["training.self_supervision.kind=contrastive"], "smoothing"),
    ],
)
def test_what_smoothing_does_not_go_with_is_refused(
    world_config: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(world_config, (*SMOOTHED, *overrides))


def test_several_processes_are_refused(smoothed: ExperimentConfig, dataset: Dataset) -> None:
    alone = replace(World(), size=1)
    assert build_two_tower(smoothed, dataset, alone).smoothing is not None
    table = smoothed.embedding.model_copy(update={"backend": "torch"})
    with pytest.raises(ConfigError, match="2 processes hold a share each: train in one process"):
        build_two_tower(
            smoothed.model_copy(update={"embedding": table}), dataset, replace(World(), size=2)
        )


def test_scores_of_pairs_are_those_of_the_best_interest(
    smoothed: ExperimentConfig, dataset: Dataset
) -> None:
    model = build_two_tower(smoothed, dataset, ALONE).eval()
    items = dataset.train_counts > 0
    sample = sample_pairs(dataset, VALIDATION, items, history_length=10, filter_seen=True)
    found = pair_scores(model, dataset, sample)
    vectors = catalogue_vectors(model, dataset.items)
    queries = query_vectors(model, sample.block, vectors, sample.history)
    for pair in (0, 11, len(found) - 1):
        each = queries[sample.query[pair]] @ vectors[sample.item_row[pair]]
        assert each.shape == (2,)
        assert found[pair] == pytest.approx(float(each.max()), abs=1e-5)


def test_hard_negatives_are_those_of_the_best_interest(
    config: ExperimentConfig, dataset: Dataset, validation: Queries
) -> None:
    model = config.model.model_copy(update={"interests": 3})
    mined = HardNegatives(count=2, every=100)
    training = config.training.model_copy(
        update={"hard_negatives": mined, "batch_size": 24, "uniform_negatives": 4}
    )
    ours = config.model_copy(update={"model": model, "training": training})
    task = two_tower_task(ours, dataset, validation, World())
    tower, objective = task.trained.model, task.loss
    assert isinstance(tower, TwoTower)
    batch = next(iter(task.batches(0, 0)))
    taken = objective.training_items.of(batch)  # type: ignore[attr-defined]
    grown = objective.miner.join(tower, batch, taken)  # type: ignore[attr-defined]
    vectors = catalogue_vectors(tower, dataset.items)
    events = replace(batch.history, values=batch.item_rows[batch.history.values])
    queries = query_vectors(tower, batch.query, vectors, events)
    top = search(ExactVectors(vectors), queries, 2, taken)[1]
    found = set(grown.item_rows[: grown.num_candidates].tolist())
    assert set(top[top >= 0].tolist()) <= found
    assert torch.isfinite(task.loss(batch))
