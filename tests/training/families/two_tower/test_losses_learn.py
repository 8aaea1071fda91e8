"""Every loss and way to draw examples teaches a two-tower something; a collapse is told."""

import json
import logging
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.core.strict_yaml import read_yaml
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.ranks import World
from recsys.training.families.load import load_config, parse_config
from recsys.training.families.two_tower.task import two_tower_task
from recsys.training.jobs.train import train


@pytest.fixture(scope="module")
def validation(dataset: Dataset) -> Queries:
    return build_queries(
        dataset, VALIDATION, history_length=10, filter_seen=True, limit=200, seed=0
    )


def changed(config: ExperimentConfig, changes: dict[str, object]) -> ExperimentConfig:
    raw = config.model_dump(mode="json", by_alias=True)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = raw
        for parent in parents:
            node = node[parent]
        node[last] = value
    return parse_config(raw, source="test")


WAYS: list[dict[str, object]] = [
    {"training.loss": {"kind": "sampled_softmax"}},
    {"training.loss": "full_softmax", "training.examples": "users"},
    {"training.loss": {"kind": "bce", "negative_weight": 4.0}},
    {"training.loss": "bpr"},
    {"training.loss": {"kind": "cosine_contrastive", "margin": 0.2, "negative_weight": 20.0}},
    {"training.loss": "metric", "model.geometry": "ball"},
    {"training.examples": "users", "training.positives": 3, "training.mask_taken": True},
    {"training.examples": "users", "training.cut_history": False, "model.smoothing.rounds": 1},
    {"model.geometry": "biased_sphere", "model.interests": 2},
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: json.dumps(way).replace("training.", ""))
def test_it_learns(
    config: ExperimentConfig,
    dataset: Dataset,
    validation: Queries,
    way: dict[str, object],
    tmp_path: Path,
) -> None:
    users = way.get("training.examples") == "users"
    quick = {"training.epochs": 40 if users else 4, "training.batch_size": 64 if users else 256}
    slow = {"training.patience": 50, "training.precision": "float32", "training.id_dropout": 0.0}
    settings = changed(config, {**quick, **slow, **way})
    task = two_tower_task(settings, dataset, validation, World())
    before = task.validate()["recall_at_20"]
    fit(task, settings.training, Checkpoints(tmp_path))
    chance = 20 / dataset.num_items
    assert task.validate()["recall_at_20"] > max(1.25 * before, 1.5 * chance)


def test_a_loss_is_named_or_spelt_out_and_a_wrong_one_is_refused(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    named = changed(config, {"training.loss": "metric"})
    assert named.training.loss.kind == "metric"
    assert changed(config, {"training.loss": {"kind": "metric"}}) == named
    path = tmp_path / "recsys.yaml"
    path.write_text(dump_config(named))
    assert read_yaml(path.read_text(), source=path)["training"]["loss"]["margin"] == 0.5
    assert load_config(path).training.loss == named.training.loss
    for wrong, words in (
        ("training.loss=hinge", "training.loss"),
        ("training.loss={kind: bce, margin: 1}", "margin"),
        ("model.geometry=biased_sphere", "cosine_contrastive"),
    ):
        loss = () if "loss" in wrong else ("training.loss=cosine_contrastive",)
        with pytest.raises(ConfigError, match=words):
            load_config(path, (wrong, *loss))


def test_a_collapse_is_said_when_training_ends(
    config: ExperimentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wild: dict[str, object] = {"training.learning_rate": 0.5, "tracking.enabled": False}
    healthy: dict[str, object] = {"tracking.enabled": False}
    for number, (changes, warned) in enumerate(((wild, True), (healthy, False))):
        output = {
            "output": str(tmp_path / str(number)),
            "training.epochs": 8,
            "training.patience": 8,
        }
        caplog.clear()
        train(changed(config, {**changes, **output}))
        records = [one for one in caplog.records if one.name.startswith("recsys.")]
        warnings = [one.getMessage() for one in records if one.levelno == logging.WARNING]
        warnings = [line for line in warnings if "still rising" not in line]  # so few epochs
        assert bool(warnings) == warned
        assert all("The representation has collapsed" in line for line in warnings)
