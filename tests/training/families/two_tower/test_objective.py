"""What joins a batch's candidates, against slow references; and that every run resumes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.events import Event, StepDone
from recsys.data.batch import PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import FullSoftmax
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.ranks import World
from recsys.training.families.two_tower import hard_negatives
from recsys.training.families.two_tower.config import HardNegatives, TowerSelfSupervision
from recsys.training.families.two_tower.objective import RetrievalObjective
from recsys.training.families.two_tower.task import two_tower_task


@pytest.fixture(scope="module")
def validation(dataset: Dataset) -> Queries:
    return build_queries(dataset, VALIDATION, history_length=10, filter_seen=True, limit=50, seed=0)


def changed(config: ExperimentConfig, **training: Any) -> ExperimentConfig:
    """Small batches, no dropout, float32: what a slow reference can follow."""
    settings: dict[str, Any] = {"batch_size": 24, "uniform_negatives": 8, "precision": "float32"}
    update = {"training": config.training.model_copy(update={**settings, **training})}
    model = config.model.model_copy(update={"dropout": 0.0})
    return config.model_copy(update={**update, "model": model})


def model_of(task: Task[PairBatch]) -> TwoTower:
    assert isinstance(task.trained.model, TwoTower)
    return task.trained.model


def taken_in_training(data: Dataset, batch: PairBatch) -> list[set[int]]:
    """Return what the user of each query took in training."""
    events = data.tables.events
    training = data.events_of((TRAIN,))
    users = events.user_row[batch.examples.numpy()]
    return [set(events.item_row[training[events.user_row[training] == u]].tolist()) for u in users]


def slow_softmax(
    model: TwoTower,
    batch: PairBatch,
    candidates: dict[int, tuple[Tensor, float]],
    spared: list[set[int]],
) -> float:
    """Return the loss over `candidates`, item row -> (vector, log q), query by query."""
    with torch.no_grad():
        query, _ = model(batch)
    total = 0.0
    for number, vector in enumerate(query):
        positive = int(batch.item_rows[batch.positive[number]])
        logits = {row: float(vector @ c) / 0.07 for row, (c, _) in candidates.items()}
        negatives = [
            logits[row] - log_q
            for row, (_, log_q) in candidates.items()
            if row != positive and row not in spared[number]
        ]
        everything = torch.tensor([logits[positive], *negatives])
        total += float(everything.logsumexp(0) - logits[positive])
    return total / len(query)


def own_candidates(model: TwoTower, batch: PairBatch) -> dict[int, Tensor]:
    with torch.no_grad():
        _, candidate = model(batch)
    return dict(zip(batch.item_rows.tolist(), candidate, strict=False))


def test_streaming_probabilities_are_those_of_the_batches_so_far(
    config: ExperimentConfig, dataset: Dataset, validation: Queries
) -> None:
    task = two_tower_task(
        changed(config, logq_correction="streaming"), dataset, validation, World()
    )
    model = model_of(task)
    batches = [batch for batch, _ in zip(task.batches(0, 0), range(6), strict=False)]
    came: dict[int, list[int]] = {}
    for step, batch in enumerate(batches, start=1):
        loss = float(task.loss(batch).detach())
        rows = batch.item_rows[: batch.num_candidates].tolist()
        for row in rows:
            came.setdefault(row, [0]).append(step)
        # The mean gap: all steps up to the last time, over the times.
        log_q = {row: -torch.tensor(came[row][-1] / (len(came[row]) - 1)).log() for row in rows}
        own = own_candidates(model, batch)
        candidates = {row: (own[row], float(log_q[row])) for row in rows}
        expected = slow_softmax(model, batch, candidates, [set()] * len(batch))
        assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mask_taken", [False, True])
def test_cached_negatives_join_the_sum_with_the_probability_of_both(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, mask_taken: bool
) -> None:
    ours = changed(config, cached_negatives=200, mask_taken=mask_taken)
    task = two_tower_task(ours, dataset, validation, World())
    model = model_of(task)
    first, second, third = (b for b, _ in zip(task.batches(0, 0), range(3), strict=False))
    past: dict[int, Tensor] = {}
    sizes = []
    for number, batch in enumerate((first, second, third)):
        loss = float(task.loss(batch).detach())
        own = own_candidates(model, batch)
        q = dict(zip(batch.item_rows.tolist(), batch.log_inclusion.exp().tolist(), strict=False))
        table = task.trained.table.weight
        assert not table.requires_grad
        union = {**past, **own}
        probability = q | past_q(task)
        candidates = {
            row: (vector, float(torch.tensor(1 - (1 - probability[row]) ** (1 + number)).log()))
            for row, vector in union.items()
        }
        spared = taken_in_training(dataset, batch) if mask_taken else [set()] * len(batch)
        expected = slow_softmax(model, batch, candidates, spared)
        assert loss == pytest.approx(expected, rel=1e-4)
        past = union
        sizes.append(len(union))
        with torch.no_grad():  # vectors of later steps are others than those that were cached
            table.add_(0.01 * torch.randn_like(table))
    assert sizes[0] < sizes[1] < sizes[2]


def past_q(task: Task[PairBatch]) -> dict[int, float]:
    """Return the probability of each item of the past batches, as the cache keeps it."""
    assert task.trained.head is not None
    cache = dict(task.trained.head.named_buffers())
    filled = int(cache["cache.filled"])
    rows = cache["cache.item_rows"][:filled].tolist()
    return dict(zip(rows, cache["cache.log_q"][:filled].exp().tolist(), strict=True))


@pytest.mark.parametrize(("count", "most"), [(1, 64), (3, 64), (3, 2)])
def test_hard_negatives_are_what_the_queries_would_be_shown(
    config: ExperimentConfig,
    dataset: Dataset,
    validation: Queries,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    most: int,
) -> None:
    monkeypatch.setattr(hard_negatives, "MOST", most)
    hard = HardNegatives(count=count, every=2)
    task = two_tower_task(changed(config, hard_negatives=hard), dataset, validation, World())
    model = model_of(task)
    snapshot = torch.zeros(0)
    table = task.trained.table.weight
    for number, batch in zip(range(4), task.batches(0, 0), strict=False):
        model.eval()
        with torch.no_grad():
            now = model.encode_items(dataset.items)
            snapshot = now if number % 2 == 0 else snapshot
            events = replace(batch.history, values=batch.item_rows[batch.history.values])
            scores = model.encode_queries(batch.query, snapshot, events) @ snapshot.T
        model.train()
        taken = taken_in_training(dataset, batch)
        times: dict[int, int] = {}
        for line, own in zip(scores, taken, strict=True):
            line[list(own)] = -torch.inf
            for row in line.sort(descending=True, stable=True).indices[:count].tolist():
                times[row] = times.get(row, 0) + 1
        mined = sorted(times, key=lambda row: (-times[row], row))[: most * count]
        loss = float(task.loss(batch).detach())
        candidates = {
            row: (vector, 0.0 if row in mined else float(log_q))
            for (row, vector), log_q in zip(
                own_candidates(model, batch).items(), batch.log_inclusion, strict=False
            )
        }
        fresh = set(mined) - set(candidates)
        # An item of a history is in the batch already, with or without its id.
        with torch.no_grad():
            here = dict(zip(batch.item_rows.tolist(), model.encode_items(batch.items), strict=True))
        candidates |= {row: (here.get(row, now[row]), 0.0) for row in mined if row in fresh}
        # Items that were drawn stay negatives of those who took them at another time.
        spared = [own & fresh for own in taken]
        assert loss == pytest.approx(slow_softmax(model, batch, candidates, spared), rel=1e-4)
        with torch.no_grad():
            table.add_(0.02 * torch.randn_like(table))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_hard_negatives_are_trained_in_one_call_of_the_table(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, precision: str
) -> None:
    ours = changed(
        config,
        batch_size=3,
        uniform_negatives=0,
        hard_negatives=HardNegatives(count=5),
        precision=precision,
    )
    task = two_tower_task(ours, dataset, validation, World())
    model, calls = model_of(task), []
    table = model.embedding.table

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(table, name)

        def __call__(self, *arguments: Any) -> Any:
            if torch.is_grad_enabled():
                calls.append(arguments[0])
            return table(*arguments)

    model.embedding.table = Watched()  # type: ignore[assignment]
    before = table.weight.clone()
    batch = next(iter(task.batches(0, 0)))
    plain = len(batch.items)
    task.loss(batch).backward()
    assert len(calls) == 1
    assert len(calls[0]) > plain
    moved = (table.weight != before).any(1)
    assert bool(moved[calls[0].unique()].float().mean() > 0.9)
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.candidate.parameters())


def test_queries_of_several_interests_mine_by_the_best_of_them(
    config: ExperimentConfig, dataset: Dataset, validation: Queries
) -> None:
    model = config.model.model_copy(update={"interests": 3})
    hard = HardNegatives(count=2)
    ours = changed(config.model_copy(update={"model": model}), hard_negatives=hard)
    task = two_tower_task(ours, dataset, validation, World())
    objective, batch = task.loss, next(iter(task.batches(0, 0)))
    assert isinstance(objective, RetrievalObjective)
    assert objective.miner is not None
    assert objective.training_items is not None
    grown = objective.miner.join(model_of(task), batch, objective.training_items.of(batch))
    with torch.no_grad():
        items = model_of(task).encode_items(dataset.items)
        events = replace(batch.history, values=batch.item_rows[batch.history.values])
        asked = model_of(task).encode_queries(batch.query, items, events)
    scores = (asked @ items.T).amax(1)
    mined: set[int] = set()
    for line, own in zip(scores, taken_in_training(dataset, batch), strict=True):
        line[list(own)] = -torch.inf
        mined |= set(line.topk(2).indices.tolist())
    candidates = set(grown.item_rows[: grown.num_candidates].tolist())
    assert candidates == mined | set(batch.item_rows[: batch.num_candidates].tolist())
    assert float(task.loss(batch).detach()) > 0


def test_what_was_mined_is_not_cached(
    config: ExperimentConfig, dataset: Dataset, validation: Queries
) -> None:
    """Sampling did not draw it, so no probability would be right for it later."""
    hard = HardNegatives(count=3)
    ours = changed(config, hard_negatives=hard, cached_negatives=500)
    task = two_tower_task(ours, dataset, validation, World())
    batch = next(iter(task.batches(0, 0)))
    task.loss(batch)
    objective = task.loss
    assert isinstance(objective, RetrievalObjective)
    assert objective.cache is not None
    none = torch.zeros(0, dtype=torch.int64)
    cached = objective.cache.beside(none, torch.zeros(0))
    own = batch.item_rows[: batch.num_candidates]
    assert torch.equal(cached.item_rows, own)
    assert past_q(task) == pytest.approx(
        dict(zip(own.tolist(), batch.log_inclusion.exp().tolist(), strict=True))
    )


def test_items_without_a_training_row_are_mined_only_where_they_may_be_negatives(
    config: ExperimentConfig, dataset: Dataset, validation: Queries
) -> None:
    part = dataset.part.copy()
    part[(part == TRAIN) & (dataset.tables.events.item_row == 5)] = -1
    without = replace(dataset, part=part)
    assert without.train_counts[5] == 0
    for negative_items in ("catalogue", "trained"):
        hard = HardNegatives(count=120)  # all there are
        ours = changed(config, hard_negatives=hard, negative_items=negative_items)
        task = two_tower_task(ours, without, validation, World())
        objective, batch = task.loss, next(iter(task.batches(0, 0)))
        assert isinstance(objective, RetrievalObjective)
        assert objective.miner is not None
        assert objective.training_items is not None
        grown = objective.miner.join(model_of(task), batch, objective.training_items.of(batch))
        candidates = grown.item_rows[: grown.num_candidates].tolist()
        assert (5 in candidates) == (negative_items == "catalogue")
        trained = int((without.train_counts > 0).sum())
        assert len(candidates) == {"catalogue": 120, "trained": trained}[negative_items]


class Stop:
    """Ends a training as a crash would, after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.global_step == self.step:
            raise KeyboardInterrupt


def bits(task: Task[PairBatch]) -> dict[str, bytes]:
    table = task.trained.table
    state = {**task.trained.tensors(), "table": table.weight, **table.state}
    return {name: one.detach().numpy().tobytes() for name, one in state.items()}


ALL = {
    "logq_correction": "streaming",
    "cached_negatives": 300,
    "hard_negatives": HardNegatives(count=2, every=3),
    "self_supervision": TowerSelfSupervision(kind="contrastive", batch_size=16, views="both"),
    "mask_taken": True,
    "examples": "users",
    "positives": 5,
}


@pytest.mark.parametrize(
    "keys", [("logq_correction",), ("cached_negatives",), ("hard_negatives",), tuple(ALL)]
)
def test_a_killed_run_ends_with_the_same_bits(
    config: ExperimentConfig,
    dataset: Dataset,
    validation: Queries,
    tmp_path: Path,
    keys: tuple[str, ...],
) -> None:
    asked = {key: ALL[key] for key in keys}
    ours = changed(
        config, batch_size=40 if "examples" in asked else 256, checkpoint_every=4, **asked
    )
    tasks = [two_tower_task(ours, dataset, validation, World()) for _ in range(3)]
    fit(tasks[0], ours.training, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[1], ours.training, Checkpoints(tmp_path / "cut"), (Stop(7),))
    fit(tasks[2], ours.training, Checkpoints(tmp_path / "cut"))
    assert bits(tasks[2]) == bits(tasks[0])
    assert any(name.startswith("head.") for name in bits(tasks[0]))


@pytest.mark.parametrize("key", ["logq_correction", "cached_negatives", "hard_negatives"])
def test_what_is_about_sampling_is_refused_where_nothing_is_sampled(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, key: str
) -> None:
    ours = changed(config, loss=FullSoftmax(kind="full_softmax"), **{key: ALL[key]})
    with pytest.raises(ConfigError, match=rf"training\.{key}.* full_softmax has the whole"):
        two_tower_task(ours, dataset, validation, World())
    smoothing = config.model.smoothing.model_copy(update={"rounds": 1})
    model = config.model.model_copy(update={"smoothing": smoothing})
    ours = changed(config, **{key: ALL[key]}).model_copy(update={"model": model})
    with pytest.raises(ConfigError, match=rf"training\.{key}.* model\.smoothing has the whole"):
        two_tower_task(ours, dataset, validation, World())


def test_mining_in_several_processes_is_refused(config: ExperimentConfig, dataset: Dataset) -> None:
    ours = changed(config, hard_negatives=HardNegatives(count=2))
    task = two_tower_task(changed(config), dataset, None, World())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="with all queries of a batch, and 2 processes hold"):
        RetrievalObjective(
            model_of(task), dataset, ours.training, replace(World(), size=2), torch.device("cpu")
        )


def test_the_log_is_counted_or_not_as_the_key_says(config: ExperimentConfig) -> None:
    raw = config.training.model_dump()
    for value in (True, False, "streaming"):
        made = type(config.training).model_validate({**raw, "logq_correction": value})
        assert made.logq_correction == value
    with pytest.raises(ValueError, match="logq_correction"):
        type(config.training).model_validate({**raw, "logq_correction": "counting"})
