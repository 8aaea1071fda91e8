"""Self-supervision beside a ranker's loss: what it draws, what it reaches, and that runs resume."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from recsys.bundle.weights import load_ranker, save_weights
from recsys.core.errors import ConfigError
from recsys.core.events import Event, StepDone
from recsys.data.batch import FeatureBlock, RankingBatch
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.metrics.information import excess_information
from recsys.sampling.augment import MASK_HASH, categories, correlated_masks
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.task import ranking_task
from recsys.training.families.self_supervision import self_supervised

ITEMS, ROWS = 60, 1_000
ITEM_FEATURES = [
    {"name": "item", "table": "items", "kind": "categorical"},
    {"name": "maker", "table": "items", "kind": "categorical"},
    {"name": "country", "table": "items", "kind": "categorical"},
    {"name": "price", "table": "items", "kind": "numeric"},
    {"name": "colour", "table": "items", "kind": "categorical"},
    {"name": "tags", "table": "items", "kind": "multi_categorical"},
]
Config = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def config_of(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Configurations of a log whose items have makers, who sit in countries and set prices."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    maker = rng.integers(0, 6, ITEMS)
    items = {
        "item": np.arange(ITEMS),
        "maker": maker,
        "country": maker % 3,
        "price": maker * 10.0,
        "colour": rng.integers(0, 3, ITEMS),
        "tags": [rng.integers(0, 5, 3).tolist() for _ in range(ITEMS)],
    }
    user, item = rng.integers(0, 50, ROWS), rng.integers(0, ITEMS, ROWS)
    log = {
        "user": user,
        "item": item,
        "at": np.arange(ROWS) + 1_700_000_000,
        "place": rng.integers(0, 4, ROWS),
        "label": ((user + maker[item]) % 3 == 0).astype(np.int8),
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    pq.write_table(pa.table(log), folder / "log.parquet")

    def config(model: str = "dcn", **changes: Any) -> ExperimentConfig:
        streamed = changes.pop("stream", False)
        features = [
            {"name": "user", "table": "users", "kind": "categorical"},
            {"name": "place", "table": "interactions", "kind": "categorical"},
            *changes.pop("features", ITEM_FEATURES),
        ]
        data = {"interactions": str(folder / "log.parquet"), "items": str(folder / "items.parquet")}
        roles: dict[str, Any] = {"label": {"column": "label"}, "time": {"column": "at"}}
        roles["time"]["unit"] = "s"
        schema: dict[str, Any] = {"interactions": roles, "features": features}
        if streamed:
            data = {"interactions": str(folder / "log.parquet"), "stream": True}
            schema["features"] = [
                {"name": name, "table": "interactions", "kind": "categorical"}
                for name in ("user", "item", "place")
            ]
        else:
            schema["items"] = {"key": "item"}
            roles |= {"user": "user", "item": "item"}
        raw = {
            "data": data,
            "schema": schema,
            "model": {"kind": model},
            "embedding": {
                "num_rows": 512,
                "dim": 4,
                "optimizer": "row_wise_adagrad",
                "weight_decay": 0.0,
                "backend": changes.pop("backend", "torch"),
            },
            "training": {
                "batch_size": 200,
                "epochs": 3,
                "metric": "auc",
                "checkpoint_every": 3,
                "self_supervision": {"kind": "contrastive", "batch_size": 32, **changes},
            },
            "output": str(folder / "runs"),
        }
        return parse_config(raw, source="shop.yaml")

    return config


def task_of(config: ExperimentConfig) -> tuple[Task[RankingBatch], RankingRows]:
    rows = open_rows(config, World())
    return ranking_task(config, rows, World()), rows


def bits(task: Task[RankingBatch]) -> dict[str, bytes]:
    table = task.trained.table
    state = {**task.trained.tensors(), "table": table.weight, **table.state}
    return {name: one.detach().numpy().tobytes() for name, one in state.items()}


class KillAt:
    """Ends a training as a crash would, after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("autoint", {"views": "item", "masking": "correlated", "backend": "fbgemm"}),
        ("dcn", {"views": "row", "masking": "random", "backend": "torch"}),
        ("mlp", {"kind": "spread_out", "backend": "fbgemm"}),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(
    config_of: Config, tmp_path: Path, model: str, changes: dict[str, Any]
) -> None:
    config = config_of(model, **changes)
    tasks = [task_of(config)[0] for _ in range(3)]
    assert any(name.startswith("head.") for name in bits(tasks[0]))
    fit(tasks[0], config.training, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[1], config.training, Checkpoints(tmp_path / "cut"), (KillAt(7),))
    fit(tasks[2], config.training, Checkpoints(tmp_path / "cut"))
    assert bits(tasks[2]) == bits(tasks[0])


def test_weight_zero_is_none(config_of: Config, tmp_path: Path) -> None:
    found = []
    for number, changes in enumerate([{"weight": 0.0}, {"kind": "none"}, {"weight": 0.1}]):
        config = config_of(**changes)
        task, _ = task_of(config)
        fit(task, config.training, Checkpoints(tmp_path / str(number)))
        found.append(bits(task))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("views", ["item", "row"])
def test_the_labels_loss_is_as_it_was_and_the_other_reaches_all_it_should(
    config_of: Config, views: str
) -> None:
    values = []
    for weight in (0.0, 1e-9, 0.5):
        task, _ = task_of(config_of("dcn", views=views, weight=weight))
        batch = next(iter(task.batches(0, 0)))
        torch.manual_seed(3)
        values.append(task.loss(batch))
    plain, nearly, whole = (float(value.detach()) for value in values)
    assert nearly == pytest.approx(plain, rel=1e-6)  # its dropout was drawn first
    assert 0 < whole - plain <= 0.5 * (2 / 0.5 + np.log(32))

    head = task.trained.head
    assert head is not None
    optimizer = task.trained.optimizer
    assert [p for group in optimizer.param_groups for p in group["params"]][-1] is head.weight
    embedding: Any = task.trained.model.embedding
    before = task.trained.table.weight.clone()
    values[2].backward()
    assert head.weight.grad is not None
    assert head.weight.grad.any()
    moved = (task.trained.table.weight != before).any(1)
    # Both views hide the user of an item, and one view or the other each feature of a row.
    for name in ("user", "maker"):
        assert moved[embedding.plan.rows_of(name, torch.tensor([MASK_HASH]))].all()


def test_masked_views_do_not_move_the_statistics_of_rows(config_of: Config) -> None:
    found = []
    for weight in (0.0, 0.5):
        task, _ = task_of(config_of("dcn", weight=weight))
        task.trained.model.train()
        batch = next(iter(task.batches(0, 0)))
        torch.manual_seed(3)  # of its dropout
        task.loss(batch)
        buffers = dict(task.trained.model.named_buffers())
        found.append({n: b.clone() for n, b in buffers.items() if "running" in n or "steps" in n})
    plain, beside = found
    assert plain
    assert any(one.any() for one in plain.values())
    for name, one in plain.items():
        torch.testing.assert_close(beside[name], one)


def test_items_are_drawn_alike_and_alone(config_of: Config) -> None:
    """What the model is shown: the catalogue in equal shares, with nothing of user and place."""
    config = config_of(dropout=0.0)
    rows = open_rows(config, World())
    plain = ranking_task(without(config), rows, World())
    model: Any = plain.trained.model
    shown, represent = [], model.represent

    def watched(features: FeatureBlock) -> Tensor:
        shown.append(features)
        found: Tensor = represent(features)
        return found

    model.represent = watched
    task = self_supervised(plain, config, rows, World())
    batch = next(iter(task.batches(0, 0)))
    shown.clear()
    for _ in range(100):
        task.loss(batch)
    shown = [one for one in shown if len(one) == 64]  # a DCN uses it in the batch too
    columns = {name: place for place, (name, _) in enumerate(rows.layout.single)}
    hidden = torch.stack([one.single == MASK_HASH for one in shown])
    assert hidden[:, :, [columns["user"], columns["place"]]].all()
    items = torch.cat([one.single[:, columns["item"]] for one in shown])
    _, counts = items[items != MASK_HASH].unique(return_counts=True)
    assert len(counts) == ITEMS
    expected = 32 * 100 / ITEMS  # in one view of the two
    assert (counts - expected).abs().max() < 5 * expected**0.5

    # All rows of a batch share their mask, and over the batches every seed has its turn.
    own = hidden[:, :, [columns[name] for name in ("item", "maker", "country", "colour")]]
    assert (own[:, :32] == own[:, :1]).all()
    assert (own[:, 32:] == ~own[:, :1]).all()
    assert rows.items is not None
    layout = rows.encoder.layout("items")
    masks = correlated_masks(excess_information(categories(rows.items, layout)))
    patterns = {tuple(one) for one in own[:, 0].tolist()}
    assert patterns == {tuple(one) for one in masks[:, :4].tolist()}
    # Maker, country and price (the last) tell all of each other: a seed of them hides them all.
    for seed in (1, 2, 5):
        assert masks[seed, [1, 2, 5]].all()


def without(config: ExperimentConfig) -> ExperimentConfig:
    """Return the same without self-supervision."""
    settings = config.training.self_supervision.model_copy(update={"kind": "none"})
    training = config.training.model_copy(update={"self_supervision": settings})
    return config.model_copy(update={"training": training})


def test_what_was_trained_beside_the_model_stays_behind(config_of: Config, tmp_path: Path) -> None:
    config = config_of("autoint", views="row")
    task, rows = task_of(config)
    fit(task, config.training, Checkpoints(tmp_path))
    embedding = task.trained.model.embedding
    assert isinstance(embedding, UnifiedEmbedding)
    weights = save_weights(task.trained.model)
    loaded = load_ranker(weights, config.model, config.embedding, rows.layout)  # type: ignore[arg-type]
    batch = next(iter(task.batches(0, 0)))
    task.trained.model.eval()
    torch.testing.assert_close(loaded(batch.features), task.trained.model(batch.features))


def test_a_streamed_log_trains_with_views_of_rows(config_of: Config, tmp_path: Path) -> None:
    config = config_of("autoint", views="row", stream=True)
    task, _ = task_of(config)
    state = fit(task, config.training, Checkpoints(tmp_path))
    assert state.finished


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "fm"},
            "is for autoint, dcn, mlp, finalmlp, masknet, shared_bottom and mmoe, which have a "
            "repr.*kind is fm",
        ),
        ({"model": "logistic"}, "model.kind is logistic: set its kind to none"),
        ({"stream": True}, "views: item draws from the items table, .* set views: row"),
        (
            {"views": "query"},
            "views: query is for two-towers, and model.kind is dcn: .* 'item' or 'row'",
        ),
        ({"masking": "none", "dropout": 0.0}, "two views that are the same: set dropout"),
        ({"temperature": 0.0}, "temperature: .* greater than 0"),
        ({"maskin": "random"}, "unknown key .*did you mean 'masking'"),
    ],
)
def test_what_does_not_fit_is_refused(
    config_of: Config, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


def test_a_single_feature_cannot_be_hidden_and_shown(config_of: Config) -> None:
    config = config_of(features=ITEM_FEATURES[:1])
    with pytest.raises(ConfigError, match=r"some of the item's features .* there is item alone"):
        task_of(config)


def test_several_processes_are_refused(config_of: Config) -> None:
    config = config_of()
    rows = open_rows(config, World())
    task = ranking_task(without(config), rows, World())
    with pytest.raises(ConfigError, match="compares all rows of a batch, and 2 processes"):
        self_supervised(task, config, rows, replace(World(), size=2))


def test_a_ranker_beside_it_without_a_representation_goes_without(config_of: Config) -> None:
    config = config_of()
    other = config_of("fm", kind="none")
    mixed = config.model_copy(update={"model": other.model})
    task, _ = task_of(mixed)
    assert task.trained.head is None
