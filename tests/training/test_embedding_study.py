"""The study of multiplicities on a planted world, its noise twin, and through the door."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner

from recsys.cli import main
from recsys.embeddings.selection import GatedEmbedding
from recsys.errors import ConfigError
from training.config import ExperimentConfig, load_config
from training.distributed import World
from training.embedding_study import learn, step_gates, study, with_lookups, worths
from training.ranking_rows import open_rows
from training.ranking_task import build_ranker


def world(folder: Path, *, noise: bool = False) -> Path:
    """6,000 rows: `shop` (400 values) says nearly everything, `colour` and `size` nothing."""
    rng = np.random.default_rng(0)
    rows = 6_000
    shop = rng.integers(0, 400, rows)
    effect = rng.normal(0, 3, 400)[shop]
    if noise:
        effect = rng.permutation(effect)
    columns = {
        "label": (rng.random(rows) < 1 / (1 + np.exp(-effect))).astype(np.int32),
        "shop": shop,
        "colour": rng.integers(0, 400, rows),
        "size": rng.integers(0, 400, rows),
        "price": rng.normal(0, 1, rows),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    features: list[dict[str, Any]] = [
        {"name": name, "table": "interactions", "kind": "categorical"}
        for name in ("shop", "colour", "size")
    ]
    features.append({"name": "price", "table": "interactions", "kind": "numeric"})
    raw = {
        "data": {"interactions": str(folder / "rows.parquet"), "stream": True},
        "schema": {"interactions": {"label": {"column": "label"}}, "features": features},
        "model": {"kind": "mlp", "hidden": [16], "dropout": 0.0},
        "embedding": {"num_rows": 512, "dim": 4, "learning_rate": 0.1, "backend": "torch"},
        "training": {"batch_size": 128, "learning_rate": 0.005},
        "evaluation": {"bootstrap_samples": 20},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_feature_that_matters_gets_the_lookups(tmp_path: Path) -> None:
    found = study(load_config(world(tmp_path)), lookups=6, epochs=3, max_lookups=4)
    searched = found.trials["searched"].plan
    assert searched["shop"] == 4
    assert sum(searched.values()) == 6
    by_name = {one.feature: one for one in found.selected}
    for noise in ("colour", "size"):
        assert by_name["shop"].gate_mass > 1.3 * by_name[noise].gate_mass
        assert by_name["shop"].score > 5 * abs(by_name[noise].score)
    assert found.cardinalities == {"shop": 400, "colour": 400, "size": 400}
    assert found.trials["searched"].auc > 0.75


def test_of_noise_nothing_is_worth_anything(tmp_path: Path) -> None:
    found = study(load_config(world(tmp_path, noise=True)), lookups=6, epochs=2, max_lookups=2)
    assert all(abs(one.score) < 0.05 for one in found.selected)
    assert all(0.4 < trial.auc < 0.6 for trial in found.trials.values())


def supernet(config: ExperimentConfig) -> tuple[Any, Any]:
    rows = with_lookups(open_rows(config, World()), {"shop": 2, "colour": 2, "size": 2})
    model: Any = build_ranker(config, rows, World())
    model.embedding = GatedEmbedding(model.embedding)
    return model, rows


def test_a_step_of_the_gates_moves_nothing_else(tmp_path: Path) -> None:
    config = load_config(world(tmp_path))
    model, rows = supernet(config)
    learn(model, rows, config, 1, World())
    table = model.embedding.embedding.table.weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows_before = table.clone()
    step_gates(model, next(iter(rows.loader.ordered(1, 128))))
    assert torch.equal(table, rows_before)
    moved = [name for name, old in before.items() if not torch.equal(old, model.state_dict()[name])]
    assert moved == ["embedding.selection.gates_LD"]
    gates = model.embedding.selection.gates_LD
    assert 0 <= float(gates.min()) <= float(gates.max()) <= 1
    assert not gates.requires_grad


def test_the_worth_of_a_lookup_is_what_its_loss_costs(tmp_path: Path) -> None:
    config = load_config(world(tmp_path))
    model, rows = supernet(config)
    learn(model, rows, config, 1, World())
    worth, size = worths(model, rows, 300, World(), [0, 3])
    assert worth[[1, 2, 4, 5]].abs().sum() == 0

    batches = list(rows.loader.ordered(1, 300))
    labels = torch.cat([batch.label for batch in batches])

    def loss(closed: int | None) -> float:
        gates = model.embedding.selection.gates_LD
        kept = gates.clone()
        if closed is not None:
            gates[closed] = 0
        with torch.no_grad():
            logits = torch.cat([model(batch.features) for batch in batches])
        gates.copy_(kept)
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))

    for lookup in (0, 3):
        assert float(worth[lookup]) == pytest.approx(loss(lookup) - loss(None), abs=1e-5)
    read = torch.cat([model.embedding.embedding([batch.features])[0] for batch in batches])
    torch.testing.assert_close(size, read[:, :24].detach().abs().mean(0).view(6, 4))


def test_through_the_door_and_on_to_training(tmp_path: Path) -> None:
    path, out = world(tmp_path), tmp_path / "tuned.yaml"
    arguments = ["tune", "embedding", str(path), "--lookups", "5", "--epochs", "1"]
    done = CliRunner().invoke(main, [*arguments, "--max-lookups", "3", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "<- recommended" in done.output
    tuned = load_config(out)
    read = {one.name: getattr(one, "multiplicity", 1) for one in tuned.schema_.features}
    assert sum(read[name] for name in ("shop", "colour", "size")) == 5
    again = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert again.exit_code == 2
    assert "give --force to overwrite it" in again.output
    training = ["train", str(out), "--set", "training.epochs=1", "--json"]
    trained = CliRunner().invoke(main, training, catch_exceptions=False)
    assert trained.exit_code == 0, trained.output


def test_what_cannot_be_studied_is_said(tmp_path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match=r"two_tower is no ranker .* set multiplicity: auto"):
        study(config)
    with pytest.raises(ConfigError, match=r"--lookups 13: 3 features can be searched .* 3 to 12"):
        study(load_config(world(tmp_path)), lookups=13)
