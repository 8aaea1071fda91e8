"""A search in MLflow on a real store, and from the command line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.core.strict_yaml import read_yaml
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import load_config
from recsys.training.search import tracked as tuning_tracking
from recsys.training.search.space import space_of
from recsys.training.search.tracked import deliver_search
from recsys.training.search.tuning import Budget, Found, search

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "embedding.num_rows": [64, 128],
}


def clicks(folder: Path, uri: str | None) -> Path:
    """Write 600 rows and a configuration that trains in a moment."""
    rng = np.random.default_rng(0)
    shop = rng.integers(0, 20, 600)
    label = (rng.random(600) < 1 / (1 + np.exp(-rng.normal(0, 3, 20)[shop]))).astype(np.int32)
    pq.write_table(pa.table({"label": label, "shop": shop}), folder / "rows.parquet")
    raw: dict[str, Any] = {
        "data": {"interactions": "rows.parquet", "stream": True},
        "schema": {
            "interactions": {"label": {"column": "label"}},
            "features": [{"name": "shop", "table": "interactions", "kind": "categorical"}],
        },
        "model": {"kind": "logistic"},
        "embedding": {"num_rows": 64, "dim": 2, "backend": "torch"},
        "training": {"batch_size": 64, "epochs": 2},
        "evaluation": {"bootstrap_samples": 20, "rankers": []},
        "tracking": {"enabled": uri is not None, "uri": uri, "experiment": "tests"},
        "output": str(folder / "runs"),
    }
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def searched(config: ExperimentConfig, folder: Path, trials: int) -> Found:
    space = space_of(config, SPACE, "test")
    return search(config, space, Budget(trials), storage=folder / "tune.db", name="shop")


def check_runs(uri: str, states: list[str]) -> None:
    """The search's run, and nested in it one for each trial with its settings and curve."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    around = [run for run in runs if run.data.tags["kind"] == "tuning"]
    assert len(around) == 1
    parent = around[0]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["space/embedding.num_rows"] == "[64, 128]"
    assert parent.data.params["metric"] == "auc"
    nested = [run for run in runs if run.data.tags["kind"] != "tuning"]
    nested.sort(key=lambda run: int(run.data.tags["trial"]))
    assert [run.data.tags["trial_state"] for run in nested] == states
    curve = client.get_metric_history(parent.info.run_id, "trials/auc")
    best = client.get_metric_history(parent.info.run_id, "best/auc")
    for number, run in enumerate(nested):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {*run.data.params} == {*SPACE}
        values = client.get_metric_history(run.info.run_id, "validation/auc")
        assert len(values) == 2
        assert max(one.value for one in values) == run.data.metrics["best_validation/auc"]
        assert run.info.status == "FINISHED"
        assert curve[number].value == run.data.metrics["best_validation/auc"]
        assert best[number].value == max(one.value for one in curve[: number + 1])


def test_trials_are_nested_in_the_run_of_their_search(
    mlflow_template: Path, tmp_path: Path
) -> None:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = load_config(clicks(tmp_path, uri))
    searched(config, tmp_path, 2)
    found = searched(config, tmp_path, 3)  # goes on in the same run
    check_runs(uri, ["done"] * 3)
    assert deliver_search(found.run_dir).sent == 0


def test_a_dead_server_costs_a_search_nothing_and_all_arrives_later(
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"http://127.0.0.1:{server.getsockname()[1]}"
    for module in (tuning_tracking, sys.modules["recsys.training.tracking.background"]):
        monkeypatch.setattr(module, "SERVER_PATIENCE_SECONDS", 0.2)
    config = load_config(clicks(tmp_path, dead))
    import mlflow  # noqa: F401  # the import is not what is timed

    found = searched(config, tmp_path, 2)
    assert all(one.seconds < 5 for one in found.trials)
    assert f"deliver them later: recsys sync {found.run_dir}" in caplog.text
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (first, *_) = sorted(found.run_dir.glob("trials/*"))
    alone = tuning_tracking.deliver(first, uri)
    assert "deliver the enclosing run first" in alone.why
    still = CliRunner().invoke(main, ["sync", str(found.run_dir)])
    assert still.exit_code == 75
    assert "MLflow took 0 records" in still.output
    arguments = ["sync", str(found.run_dir), "--tracking-uri", uri]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert ", 0 left" in done.output
    check_runs(uri, ["done"] * 2)


def test_a_search_as_a_user_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clicks(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    tune = ["tune", str(path), "--space", "space.yaml"]
    done = CliRunner().invoke(main, [*tune, "--trials", "3"])
    assert done.exit_code == 0, done.output
    assert "wrote recsys-tuned.yaml; next: recsys train recsys-tuned.yaml" in done.output
    assert (tmp_path / "tune.db").is_file()
    assert load_config(tmp_path / "recsys-tuned.yaml").model.kind == "logistic"
    again = CliRunner().invoke(main, [*tune, "--trials", "3"])
    assert again.exit_code == 2
    assert "recsys-tuned.yaml exists; give --force" in again.output
    # Nothing is left to do: it does not even read the data.
    (tmp_path / "rows.parquet").rename(tmp_path / "gone.parquet")
    told = CliRunner().invoke(main, [*tune, "--trials", "3", "--force", "--json"])
    assert told.exit_code == 0, told.output
    plain = json.loads(told.stdout)
    assert plain["config"] == "recsys-tuned.yaml"
    assert len(plain["trials"]) == 3
    assert plain["best"]["value"] >= plain["baseline"]["value"]
    assert plain["metric"] == "auc"
    (tmp_path / "gone.parquet").rename(tmp_path / "rows.parquet")
    trained = CliRunner().invoke(main, ["train", "recsys-tuned.yaml", "--json"])
    assert trained.exit_code == 0, trained.output


def test_the_space_can_be_seen_and_given_back(tmp_path: Path) -> None:
    path = clicks(tmp_path, None)
    shown = CliRunner().invoke(main, ["tune", str(path), "--show-space"])
    assert shown.exit_code == 0, shown.output
    read = read_yaml(shown.output, source="shown")
    assert {*read} == {
        "training.learning_rate",
        "embedding.learning_rate",
        "training.weight_decay",
        "training.batch_size",
    }
    (tmp_path / "space.yaml").write_text(shown.output)
    options = ["--space", str(tmp_path / "space.yaml"), "--show-space", "--json"]
    again = CliRunner().invoke(main, ["tune", "search", str(path), *options])
    assert json.loads(again.output) == read


def test_the_configuration_may_hold_the_space(tmp_path: Path) -> None:
    path = clicks(tmp_path, None)
    path.write_text(path.read_text() + "tune: {training: {batch_size: [32, 64]}}\n")
    shown = CliRunner().invoke(main, ["tune", str(path), "--show-space", "--json"])
    assert json.loads(shown.output) == {"training.batch_size": [32, 64]}
    path.write_text(path.read_text().replace("batch_size: [32", "batch_sise: [32"))
    wrong = CliRunner().invoke(main, ["tune", str(path), "--show-space"])
    assert wrong.exit_code == 2
    assert "recsys.yaml: tune: the configuration of a logistic has no key" in wrong.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["recsys.yaml"], 2, "give --trials, --minutes or both: when is the search to end?"),
        (["none.yaml", "--trials", "2"], 4, "none.yaml: no such configuration"),
        (["recsys.yaml", "--trials", "0"], 2, "not in the range"),
        (["recsys.yaml", "--trials", "2", "--space", "none.yaml"], 4, "--space none.yaml: no such"),
        (["recsys.yaml", "--trials", "2", "--space", "wrong.yaml"], 2, "did you mean 'training.ba"),
        (["recsys.yaml", "--trials", "2", "--metric", "acc"], 2, "'acc' is not computed"),
        (["recsys.yaml", "--trials", "2", "--out", "no/out.yaml"], 2, "there is no folder"),
        (["recsys.yaml", "--trials", "2", "--storage", "rows.parquet"], 2, "cannot be read as SQ"),
        (["--trials", "2", "none.yaml"], 4, "none.yaml: no such configuration"),
    ],
)
def test_mistakes_are_said_before_any_work(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clicks(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("training.batchsize: [1, 2]")
    done = CliRunner().invoke(main, ["tune", *arguments])
    assert done.exit_code == code, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "tune.db").exists()
    assert not (tmp_path / "runs").exists()


def test_help_shows_both_kinds_of_search() -> None:
    for arguments in (["tune", "--help"], ["tune"]):
        shown = CliRunner().invoke(main, arguments).output
        assert "recsys tune recsys.yaml --minutes 30" in shown
        assert "embedding" in shown
        assert "search" in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_search_which_says_how_to_go_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    path = clicks(tmp_path, None)
    long = ("--set", "training.epochs=100000", "--set", "training.patience=90000")
    command = [sys.executable, "-m", "recsys.app.cli", "tune", str(path), "--trials", "2", *long]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=said, stdout=said)
        try:
            while "epoch 2" not in (tmp_path / "said.txt").read_text():
                assert process.poll() is None, (tmp_path / "said.txt").read_text()
                time.sleep(0.1)
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            process.kill()
    text = (tmp_path / "said.txt").read_text()
    assert "the trials that ended are kept in tune.db: the same command continues" in text
    assert "Traceback" not in text
    assert not (tmp_path / "recsys-tuned.yaml").exists()
