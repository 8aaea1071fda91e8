"""A ranker with rates, from training to a served answer: all see what training's evaluation saw."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import recsys
from recsys.bundle.directory import Bundle
from recsys.core.errors import IntegrityError
from recsys.features.bundle.rows import RowModel
from recsys.features.dataset.split import TEST, TRAIN
from recsys.serving.engines.rows import score_rows
from recsys.serving.export.onnx_export import OnnxRanker, export_onnx
from recsys.serving.recommend.rows import RowScorer
from recsys.training.engine.ranks import World
from recsys.training.families.load import load_config
from recsys.training.families.ranker.rows import open_rows
from recsys.training.jobs.check import preflight
from recsys.training.jobs.explain import explain_log_row, explain_model, explain_pair
from recsys.training.jobs.train import train

ROWS = 2000
LABELS = "encoder/labels.safetensors"


def trained(folder: Path, *, stream: bool, **more: Any) -> tuple[Path, Path]:
    """Return the configuration and the bundle of a log whose pairs of user and item have tastes."""
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 20, ROWS), rng.integers(0, 15, ROWS)
    likes = rng.random((20, 15)) < 0.5
    log = {
        "user": user,
        "item": item,
        "place": rng.choice(["home", "work"], ROWS),
        "click": (rng.random(ROWS) < np.where(likes[user, item], 0.9, 0.1)).astype(int),
        "number": np.arange(ROWS),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(log), folder / "log.parquet", row_group_size=300)
    place = ["interactions"] * 2 if stream else ["users", "items"]
    features: list[dict[str, Any]] = [
        {"name": "user", "table": place[0], "kind": "categorical"},
        {"name": "item", "table": place[1], "kind": "categorical"},
        {"name": "place", "table": "interactions", "kind": "categorical"},
        {"name": "pair", "kind": "rate", "of": ["user", "item"], "smoothing": 1},
        {"name": "there", "kind": "rate", "of": ["item", "place"]},
    ]
    roles: dict[str, Any] = {"user": "user", "item": "item", "label": {"column": "click"}}
    roles |= {} if stream else {"order": "number"}
    raw = {
        "data": {"interactions": str(folder / "log.parquet"), "stream": stream},
        "schema": {"interactions": roles, "features": features},
        "model": {"kind": "mlp", "hidden": [16]},
        "embedding": {"num_rows": 256, "dim": 4, "backend": "torch"},
        "training": {"epochs": 3, "batch_size": 64},
        "evaluation": {"bootstrap_samples": 5, "rankers": []},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
        **more,
    }  # fmt: skip
    (folder / "recsys.yaml").write_text(yaml.safe_dump(raw))
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return folder / "recsys.yaml", result.bundle


@pytest.fixture(scope="module", params=[False, True], ids=["in memory", "streamed"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("rates"), stream=request.param)


def test_scores_are_those_of_the_evaluation(model: tuple[Path, Path], tmp_path: Path) -> None:
    config, bundle = model
    rows, ranker = open_rows(load_config(config), World()), RowModel.open(bundle)  # type: ignore[arg-type]
    score_rows(RowScorer.open(bundle), str(config.parent / "log.parquet"), tmp_path / "out")
    found = np.asarray(pq.read_table(tmp_path / "out").sort_by("row").column("probability"))
    data = getattr(rows.loader, "data", None)

    def differences(part: int) -> Any:
        (batch,) = rows.loader.ordered(part, ROWS)
        wanted = ranker.calibrator.probability(ranker.logits(batch.features))
        events = batch.examples.numpy()
        numbers = events if data is None else data.tables.events.row[events]
        return np.abs(found[numbers] - wanted)

    assert differences(TEST).max() < 1e-6
    assert differences(TRAIN).max() > 1e-3  # a row of the training was trained on without its label
    one = pq.read_table(config.parent / "log.parquet").slice(ROWS - 5, 5).to_pandas()
    answers = recsys.load(bundle).predict(one.drop(columns="click"))
    np.testing.assert_allclose(answers["probability"], found[-5:], rtol=0, atol=1e-6)


def test_the_memory_of_pairs_is_what_the_model_looks_at(model: tuple[Path, Path]) -> None:
    config, bundle = model
    described = json.loads((bundle / "metrics.json").read_text())["test"]
    assert next(value for name, value in described.items() if name.endswith("auc")) > 0.8
    assert explain_model(bundle, max_rows=500).importance.ranking[0] == "pair"
    if "number" not in config.read_text():
        return
    told = explain_log_row(bundle, 7)
    fields = dict(zip(told.contributions.names, told.values, strict=True))
    assert "log-odds" in fields["pair"]
    assert explain_pair(bundle, "3", "4").values


def test_check_says_how_many_rows_have_a_rate(model: tuple[Path, Path]) -> None:
    said = str(preflight(load_config(model[0])))
    if "number" in model[0].read_text():
        assert re.search(
            r"note: feature 'pair': \d% of the test rows hold values that no training row holds, "
            r"and \d% of the training rows those of none that they see",
            said,
        )
    else:
        assert re.search(r"pair +number +\d\.\d%", said)


def test_the_graph_reads_the_rates_among_the_numbers(
    model: tuple[Path, Path], tmp_path: Path
) -> None:
    config, bundle = model
    facts = export_onnx(bundle, tmp_path / "onnx")
    assert facts["largest_difference"] < 1e-5
    described = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    names = ["pair", "pair.count", "pair.null", "there", "there.count", "there.null"]
    assert described["columns"]["dense"] == names
    scorer = RowScorer.open(bundle)
    rows = pq.read_table(config.parent / "log.parquet")
    encoded = scorer.rows.encode(rows, open_files(config))
    _, probability = OnnxRanker(tmp_path / "onnx" / "model.onnx", scorer.ranker.layout)(encoded)
    wanted = np.asarray(scorer.score(rows).column("probability"))
    np.testing.assert_allclose(probability, wanted, rtol=0, atol=1e-5)


def open_files(config: Path) -> Any:
    from recsys.features.tables.reading import open_table

    return open_table(str(config.parent / "log.parquet"), "rows")


def test_the_sums_are_part_of_the_bundle(model: tuple[Path, Path], tmp_path: Path) -> None:
    _, bundle = model
    assert LABELS in Bundle.open(bundle).names()
    copy = tmp_path / bundle.name
    shutil.copytree(bundle, copy)
    content = bytearray((copy / LABELS).read_bytes())
    content[-1] ^= 1
    (copy / LABELS).write_bytes(content)
    with pytest.raises(IntegrityError, match=r"labels\.safetensors"):
        RowModel.open(copy)


def test_a_warm_start_goes_on(model: tuple[Path, Path], tmp_path: Path) -> None:
    config, bundle = model
    stream = "stream: true" in config.read_text()
    _, later = trained(tmp_path / "later", stream=stream, warm_start=str(bundle))
    assert RowModel.open(later).encoder.label_tables.keys() == {"pair", "there"}
