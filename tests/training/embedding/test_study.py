"""The study of multiplicities on a planted world, its noise twin, and from the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.selection import GatedEmbedding
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.embedding import study as embedding_study
from recsys.training.embedding.study import (
    COMPARE,
    SEARCH,
    gained,
    learn,
    step_gates,
    study,
    with_lookups,
    worths,
)
from recsys.training.engine.ranks import World
from recsys.training.families.load import load_config
from recsys.training.families.ranker.half_loader import halved
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.task import Predictions, build_ranker
from recsys.training.jobs.study import study_embedding


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
        "embedding": {
            "num_rows": 512,
            "dim": 4,
            "optimizer": "row_wise_adagrad",
            "weight_decay": 0.0,
            "learning_rate": 0.1,
            "backend": "torch",
        },
        "training": {"batch_size": 128, "learning_rate": 0.005},
        "evaluation": {"bootstrap_samples": 20},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_feature_that_matters_gets_the_lookups(tmp_path: Path) -> None:
    # So few rows that two lookups leave many of the 400 values alike.
    crowded = ("embedding.num_rows=64", "split.validation=0.25")
    found = study(load_config(world(tmp_path), crowded), lookups=6, epochs=3, max_lookups=4)
    searched = found.trials["searched"].plan
    assert searched["shop"] == 4
    assert sum(searched.values()) == 6
    by_name = {one.feature: one for one in found.selected}
    for noise in ("colour", "size"):
        assert by_name["shop"].gate_mass > 1.2 * by_name[noise].gate_mass
        assert by_name["shop"].score > 5 * abs(by_name[noise].score)
    assert found.cardinalities == {"shop": 400, "colour": 400, "size": 400}
    assert found.trials["searched"].auc > 0.75
    assert found.best == "searched"
    assert found.verdict().startswith("the searched plan is better than both others (+0.")


@pytest.mark.parametrize("seed", [0, 2])
def test_of_noise_nothing_is_worth_anything_and_no_gain_is_claimed(
    tmp_path: Path, seed: int
) -> None:
    config = load_config(world(tmp_path, noise=True), (f"training.seed={seed}",))
    found = study(config, lookups=6, epochs=2, max_lookups=4)
    assert all(abs(one.score) < 0.1 for one in found.selected)
    assert all(0.4 < trial.auc < 0.6 for trial in found.trials.values())
    assert found.trials["searched"].plan != found.trials["even"].plan
    assert found.best != "searched"
    assert "found nothing that is surely better than the plan 'even'" in found.verdict()


def said(logit: np.ndarray, label: np.ndarray) -> Predictions:  # type: ignore[type-arg]
    return Predictions(logit.astype(np.float32), label, np.ones_like(label))


def test_a_gain_is_a_difference_of_aucs_that_rows_can_undo() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(4_000) < 0.3).astype(np.float32)
    good, bad = said(label + rng.normal(0, 1, 4_000), label), said(rng.normal(0, 1, 4_000), label)
    found = gained(good, bad, seed=0)
    scores = [roc_auc_score(label, one.logit) for one in (good, bad)]
    assert found.value == pytest.approx(scores[0] - scores[1])
    # Of two models that have nothing to do with each other the variances add up.
    spread = [_hanley(score, label) for score in scores]
    assert (found.high - found.low) / 3.92 == pytest.approx(np.hypot(*spread), rel=0.25)
    assert 0 < found.low < found.value < found.high
    same = gained(good, good, seed=0)
    assert (same.low, same.value, same.high) == (0, 0, 0)


def _hanley(auc: float, label: np.ndarray) -> float:  # type: ignore[type-arg]
    """Return the standard error of an AUC by Hanley and McNeil, Radiology 1982."""
    positives = float(label.sum())
    negatives = len(label) - positives
    both, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (both - auc**2)
    return float(np.sqrt((variance + (negatives - 1) * (two - auc**2)) / positives / negatives))


def test_what_is_compared_on_was_not_searched_on(tmp_path: Path) -> None:
    rows = open_rows(load_config(world(tmp_path)), World())
    whole = torch.cat([batch.examples for batch in rows.loader.ordered(VALIDATION, 100)])
    halves = [
        torch.cat([b.examples for b in halved(rows, half, 100).loader.ordered(VALIDATION, 7)])
        for half in (SEARCH, COMPARE)
    ]
    assert torch.equal(torch.cat(halves).sort().values, whole.sort().values)
    assert min(len(half) for half in halves) >= 0.4 * len(whole)
    test = [
        torch.cat([b.examples for b in loader.ordered(TEST, 100)])
        for loader in (rows.loader, halved(rows, SEARCH, 100).loader)
    ]
    assert torch.equal(*test)
    with pytest.raises(ConfigError, match="split: 7 validation rows cannot be halved for a study"):
        halved(replace(rows, rows=(100, 7, 100)), SEARCH, 100)


def supernet(config: ExperimentConfig) -> tuple[Any, Any]:
    rows = with_lookups(open_rows(config, World()), {"shop": 2, "colour": 2, "size": 2})
    model: Any = build_ranker(config, rows, World())
    model.embedding = GatedEmbedding(model.embedding)
    return model, rows


def test_what_reads_the_rows_of_a_feature_has_its_lookups(tmp_path: Path) -> None:
    rows = open_rows(load_config(world(tmp_path)), World())
    layout = FeatureLayout((("shop", 1),), (("past", 1),), (), ("mean",), (("past", "shop"),))
    found = with_lookups(replace(rows, layout=layout), {"shop": 3}).layout
    assert found.features == (("shop", 3), ("past", 3))


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


def test_from_the_command_line_to_training(tmp_path: Path) -> None:
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


def test_from_python_the_plan_is_a_configuration(tmp_path: Path) -> None:
    given = recsys.Config.open(world(tmp_path)).with_({"output": str(tmp_path / "runs")})
    tuned = recsys.tune_embedding(given, lookups=5, epochs=1, max_lookups=3, quiet=True)
    features = tuned.config.experiment.schema_.features
    read = {one.name: getattr(one, "multiplicity", 1) for one in features}
    assert sum(read[name] for name in ("shop", "colour", "size")) == 5
    assert "<- recommended" in str(tuned)
    assert {"searched", "even"} < set(tuned.to_json()["trials"])


def test_what_cannot_be_studied_is_said(tmp_path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match=r"two_tower is not studied, only .* multiplicity: auto"):
        study_embedding(config)
    with pytest.raises(ConfigError, match=r"--lookups 13: 3 features can be searched .* 3 to 12"):
        study(load_config(world(tmp_path)), lookups=13)
    with pytest.raises(ConfigError, match="a study has at least 1 epoch, got 0"):
        study(load_config(world(tmp_path)), epochs=0)


def test_what_would_fail_in_the_end_is_refused_before_the_search(tmp_path: Path) -> None:
    path = world(tmp_path)
    missing = tmp_path / "nowhere" / "tuned.yaml"
    done = CliRunner().invoke(main, ["tune", "embedding", str(path), "--out", str(missing)])
    assert done.exit_code == 2
    assert "nowhere" in done.output
    with pytest.raises(ConfigError, match="metric"):
        study(load_config(path, ("training.metric=log_loss",)))


def test_the_search_never_sees_the_rows_that_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[set[int]]] = {"_search": [], "_tried": []}

    def spied(name: str) -> None:
        real = getattr(embedding_study, name)

        def spy(config: ExperimentConfig, rows: RankingRows, *rest: Any) -> Any:
            batches = rows.loader.ordered(VALIDATION, 128)
            seen[name].append({int(row) for batch in batches for row in batch.examples})
            return real(config, rows, *rest)

        monkeypatch.setattr(embedding_study, name, spy)

    for name in seen:
        spied(name)
    study(load_config(world(tmp_path)), lookups=4, epochs=1, max_lookups=2)
    (searched,) = seen["_search"]
    assert searched
    for compared in seen["_tried"]:
        assert compared
        assert not searched & compared
