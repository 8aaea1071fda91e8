"""A warm-started model leaves as what differs from the model before, and is made of the two."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import MANIFEST, Bundle
from recsys.core.errors import ConfigError, IntegrityError
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.jobs.train import train


@pytest.fixture(scope="module")
def newer(
    config: ExperimentConfig, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of a model that was trained on from `trained`."""
    tracking = config.tracking.model_copy(update={"enabled": False})
    once = config.training.model_copy(update={"epochs": 1})
    changes = {"tracking": tracking, "training": once, "warm_start": str(trained)}
    output = str(tmp_path_factory.mktemp("newer"))
    result = train(config.model_copy(update={**changes, "output": output}), report=False)
    assert result is not None
    return result.bundle


def test_the_command_line_makes_the_same_model(trained: Path, newer: Path, tmp_path: Path) -> None:
    delta, made = tmp_path / "delta", tmp_path / "made"
    run = CliRunner()
    written = ["export", str(newer), "--delta-from", str(trained), "--out", str(delta), "--json"]
    done = run.invoke(main, written, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["base"] == trained.name
    changed, rows = facts["rows_that_differ"]["weights.safetensors: table.weight"]
    assert 0 < changed < rows == 2048
    assert facts["bytes"] < facts["bytes_of_the_model"]

    assert run.invoke(main, ["verify", str(delta)]).output.startswith("ok: ")
    done = run.invoke(main, ["patch", str(trained), str(delta), "--output", str(made)])
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(newer)
    for name in [*bundle.names(), MANIFEST]:
        assert (made / "bundle" / newer.name / name).read_bytes() == (newer / name).read_bytes()
    assert recsys.load(made).path.name == newer.name  # the folder stands for the model

    done = run.invoke(main, ["patch", str(newer), str(delta), "--output", str(tmp_path / "other")])
    assert done.exit_code == 5
    assert f"of model {trained.name}; {newer} is model {newer.name}" in done.output
    again = run.invoke(main, ["patch", str(trained), str(delta), "--output", str(made)])
    assert again.exit_code == 2
    assert "holds a model: name a new folder" in again.output


def test_what_makes_no_sense_is_refused(trained: Path, newer: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are the same model"):
        recsys.export_delta(newer, newer, tmp_path / "delta")
    recsys.export_delta(newer, trained, tmp_path / "delta")
    with pytest.raises(ConfigError, match="exists: name a new folder"):
        recsys.export_delta(newer, trained, tmp_path / "delta")
    recsys.export(newer, tmp_path / "vectors", to="parquet")
    with pytest.raises(ConfigError, match="is an export to parquet, not a delta"):
        recsys.patch(trained, tmp_path / "vectors", tmp_path / "made")
    beside = ["export", str(newer), "--delta-from", str(trained), "--to", "faiss", "--out", "x"]
    done = CliRunner().invoke(main, beside)
    assert done.exit_code == 2
    assert "--to does not go with --delta-from" in done.output


def test_a_damaged_delta_is_refused(trained: Path, newer: Path, tmp_path: Path) -> None:
    recsys.export_delta(newer, trained, tmp_path / "delta")
    rows = tmp_path / "delta" / "rows" / "weights.safetensors"
    data = bytearray(rows.read_bytes())
    data[-1] ^= 1
    rows.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"rows/weights\.safetensors: .* was changed after"):
        recsys.patch(trained, tmp_path / "delta", tmp_path / "made")
    assert not (tmp_path / "made").exists()
