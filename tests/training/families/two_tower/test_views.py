"""Self-supervision of the two-tower: one call of the table, the paper's loss, runs that resume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

from recsys.core.errors import ConfigError
from recsys.core.events import Event, StepDone
from recsys.data.batch import FeatureBlock, Jagged, PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.layers.geometry import vector_width
from recsys.models.two_tower import TwoTower
from recsys.sampling.augment import MASK_HASH
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.two_tower.config import TowerSelfSupervision
from recsys.training.families.two_tower.task import two_tower_task
from recsys.training.families.two_tower.views import TowerViews, tower_views

SETTINGS = {"kind": "contrastive", "batch_size": 48, "weight": 0.5, "temperature": 0.3}


@pytest.fixture(scope="module")
def validation(dataset: Dataset) -> Queries:
    return build_queries(dataset, VALIDATION, history_length=10, filter_seen=True, limit=50, seed=0)


def with_settings(config: ExperimentConfig, **changes: Any) -> ExperimentConfig:
    training = config.training.model_copy(
        update={
            "self_supervision": TowerSelfSupervision(**{**SETTINGS, **changes}),
            "precision": "float32",
        }
    )
    return config.model_copy(update={"training": training})


def quiet(config: ExperimentConfig) -> ExperimentConfig:
    """Without the model's own dropout."""
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})


def model_of(task: Task[PairBatch]) -> TwoTower:
    assert isinstance(task.trained.model, TwoTower)
    return task.trained.model


def views_of(config: ExperimentConfig, dataset: Dataset) -> TowerViews:
    found = tower_views(config.training.self_supervision, dataset, World())
    assert found is not None
    return found


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


@pytest.mark.parametrize(
    "changes",
    [
        {"masking": "correlated"},
        {"masking": "random", "views": "query"},
        {"masking": "none", "views": "both", "dropout": 0.3},
        {"kind": "spread_out", "views": "both"},
        {"views": "both", "geometry": "ball"},
        {"views": "both", "geometry": "biased_sphere"},
        {"views": "query", "interests": 3},
    ],
)
def test_the_loss_is_that_of_each_part_worked_out_alone(
    config: ExperimentConfig,
    dataset: Dataset,
    validation: Queries,
    changes: dict[str, Any],
) -> None:
    changes = dict(changes)
    geometry = changes.pop("geometry", "sphere")
    interests = changes.pop("interests", 1)
    shape = {"geometry": geometry, "dim": 32, "interests": interests}
    config = config.model_copy(update={"model": config.model.model_copy(update=shape)})
    ours = quiet(with_settings(config, **changes))
    task = two_tower_task(ours, dataset, validation, World())
    batch = next(iter(task.batches(0, 0)))
    plain = two_tower_task(quiet(with_settings(config, weight=0.0)), dataset, validation, World())
    model = model_of(task)
    torch.manual_seed(5)
    whole = task.loss(batch)

    torch.manual_seed(5)
    views = views_of(ours, dataset)
    drawn = [one.draw(batch.items) for one in (views.items, views.query) if one is not None]
    expected = plain.loss(batch)
    sides = ["item"] * (views.items is not None) + ["query"] * (views.query is not None)
    for side, (rows, numbers) in zip(sides, drawn, strict=True):
        expected = expected + 0.5 * slow_loss(model, side, rows, numbers, ours)
    assert float(whole.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert len(drawn) == (2 if changes.get("views") == "both" else 1)


def slow_loss(
    model: TwoTower,
    side: str,
    rows: FeatureBlock,
    numbers: torch.Tensor | None,
    config: ExperimentConfig,
) -> torch.Tensor:
    """Encode views by the towers one by one, and compare them pair by pair."""
    assert numbers is not None
    if side == "item":
        vectors = model.encode_items(rows)
    else:
        none = torch.zeros(len(rows) + 1, dtype=torch.int64)
        no_history = Jagged(none[:0], none)
        width = vector_width(32, config.model.geometry)
        vectors = model.encode_queries(rows, torch.zeros(1, width), no_history)
    settings = config.training.self_supervision
    count = len(numbers)
    vectors = F.normalize(vectors[..., :32].flatten(1), dim=1)
    if settings.kind == "spread_out":
        assert len(vectors) == count
        cosines = torch.stack(
            [
                vectors[a] @ vectors[b]
                for a in range(count)
                for b in range(count)
                if numbers[a] != numbers[b]
            ]
        )
        excess = cosines.square().mean() - 1 / vectors.shape[1]
        return cosines.mean() ** 2 + excess.clamp(min=0)
    losses = []
    for a in range(count):
        others = [b for b in range(count) if b == a or numbers[b] != numbers[a]]
        logits = torch.stack([vectors[a] @ vectors[count + b] for b in others])
        losses.append(F.cross_entropy(logits / settings.temperature, torch.tensor(others.index(a))))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("views", ["item", "query", "both"])
def test_the_table_is_called_once_a_step(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, views: str
) -> None:
    task = two_tower_task(with_settings(config, views=views), dataset, validation, World())
    model, calls = model_of(task), []
    table = model.embedding.table

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(table, name)

        def __call__(self, *arguments: Any) -> Any:
            calls.append(len(arguments[0]))
            return table(*arguments)

    model.embedding.table = Counted()  # type: ignore[assignment]
    task.loss(next(iter(task.batches(0, 0)))).backward()
    assert len(calls) == 1
    assert bool(table.weight.isfinite().all())


def test_views_hide_what_they_should_and_users_come_alone(
    config: ExperimentConfig, dataset: Dataset
) -> None:
    views = views_of(with_settings(config, views="both", dropout=0.0), dataset)
    assert views.items is not None
    assert views.query is not None
    items, _ = views.items.draw(dataset.items)
    first, second = items.take(torch.arange(48)), items.take(torch.arange(48, 96))
    hidden = (first.single == MASK_HASH, second.single == MASK_HASH)
    assert torch.equal(hidden[0], ~hidden[1])
    users, numbers = views.query.draw(dataset.users)
    assert numbers is not None
    assert int(numbers.max()) < dataset.num_users
    width = len(dataset.encoder.layout("users").single)
    context = users.single[:, width:]
    assert context.shape[1] == len(dataset.encoder.layout("interactions").single)
    assert bool((context == MASK_HASH).all())


def test_items_and_users_are_drawn_uniformly(config: ExperimentConfig, dataset: Dataset) -> None:
    views = views_of(with_settings(config, views="both", kind="spread_out"), dataset)
    for side, size in ((views.items, dataset.num_items), (views.query, dataset.num_users)):
        assert side is not None
        numbers = [side.draw(dataset.items)[1] for _ in range(200)]
        counts = torch.cat([one for one in numbers if one is not None]).bincount(minlength=size)
        expected = 48 * 200 / size
        assert float((counts - expected).abs().max()) < 5 * expected**0.5


def test_dropout_alone_masks_each_feature_of_each_row(
    config: ExperimentConfig, dataset: Dataset
) -> None:
    views = views_of(with_settings(config, masking="none", dropout=0.4, batch_size=2000), dataset)
    assert views.items is not None
    rows, _ = views.items.draw(dataset.items)
    hidden = (rows.single == MASK_HASH).float()
    assert (hidden.mean(0) - 0.4).abs().max() < 0.05
    first, second = hidden.chunk(2)
    together = (first * second).mean(0)  # views are drawn apart
    assert (together - 0.16).abs().max() < 0.05


@pytest.mark.parametrize("backend", ["torch", "fbgemm"])
def test_a_killed_run_ends_with_the_same_bits(
    config: ExperimentConfig, dataset: Dataset, validation: Queries, tmp_path: Path, backend: str
) -> None:
    table = config.embedding.model_copy(update={"backend": backend})
    ours = with_settings(config.model_copy(update={"embedding": table}), views="both")
    training = ours.training.model_copy(update={"checkpoint_every": 4})
    tasks = [two_tower_task(ours, dataset, validation, World()) for _ in range(3)]
    fit(tasks[0], training, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[1], training, Checkpoints(tmp_path / "cut"), (Stop(6),))
    fit(tasks[2], training, Checkpoints(tmp_path / "cut"))
    assert bits(tasks[2]) == bits(tasks[0])


def test_weight_zero_is_none(config: ExperimentConfig, dataset: Dataset) -> None:
    for changes in ({"weight": 0.0}, {"kind": "none"}):
        settings = with_settings(config, **changes).training.self_supervision
        assert tower_views(settings, dataset, World()) is None


def test_several_processes_are_refused(config: ExperimentConfig, dataset: Dataset) -> None:
    settings = with_settings(config).training.self_supervision
    with pytest.raises(ConfigError, match="compares all views of a batch, and 2 processes hold"):
        tower_views(settings, dataset, replace(World(), size=2))


def test_items_that_are_smoothed_have_views_of_queries_alone(
    config: ExperimentConfig, dataset: Dataset, validation: Queries
) -> None:
    smoothing = config.model.smoothing.model_copy(update={"rounds": 1})
    model = config.model.model_copy(update={"smoothing": smoothing})
    for views in ("item", "both"):
        ours = with_settings(config, views=views).model_copy(update={"model": model})
        with pytest.raises(ConfigError, match=f"views: {views} .* and model.smoothing sees none"):
            two_tower_task(ours, dataset, validation, World())
    ours = with_settings(config, views="query").model_copy(update={"model": model})
    task = two_tower_task(ours, dataset, validation, World())
    task.loss(next(iter(task.batches(0, 0)))).backward()


def test_rows_are_views_of_rankers_alone(config: ExperimentConfig) -> None:
    raw = yaml.safe_load(dump_config(config))
    raw["training"]["self_supervision"] = {"kind": "contrastive", "views": "row"}
    with pytest.raises(
        ConfigError, match=r"views: row is for rankers, .* be 'item', 'query' or 'both'"
    ):
        parse_config(raw, source="shop.yaml")
