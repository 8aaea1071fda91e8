"""Registering from a run's folder: the version knows its run, on a database and on a server."""

import json
import shutil
import urllib.request
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.tracking_store import is_database, run_of
from recsys.features.bundle.measured import Kept
from recsys.serving.registry import promote, register, resolve
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.tracking.journal import line_of, load_position
from recsys.training.tracking.run import deliver


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run that no store has heard of."""
    monkeypatch.chdir(tmp_path)
    copied = Path(shutil.copytree(trained.parents[1], tmp_path / "runs" / "finished"))
    journal = copied / "journal.jsonl"
    first, rest = journal.read_bytes().split(b"\n", 1)
    record = {key: value for key, value in json.loads(first).items() if key != "check"}
    journal.write_bytes(line_of({**record, "key": uuid.uuid4().hex}) + rest)
    return copied


@pytest.fixture(params=["database", "server"])
def store(request: pytest.FixtureRequest, mlflow_template: Path, tmp_path: Path) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("mlflow_server"))
    shutil.copy(mlflow_template, tmp_path / "own.db")
    return f"sqlite:///{tmp_path / 'own.db'}"


def recsys(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_version_is_linked_with_its_run_and_its_files(
    store: str, run_dir: Path, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert deliver(run_dir).left == 0
    run_id = load_position(run_dir, store).run_id
    (bundle,) = (run_dir / "bundle").iterdir()
    recsys("register", run_dir, "--name", "shop", "--alias", "champion")
    recsys("register", bundle, "--name", "shop")

    client = MlflowClient(store)
    versions = {number: client.get_model_version("shop", str(number)) for number in (1, 2)}
    assert {version.run_id for version in versions.values()} == {run_id}
    holding = {}
    for output in client.get_run(run_id).outputs.model_outputs:
        logged = client.get_logged_model(output.model_id)
        (noted,) = json.loads(logged.tags["mlflow.modelVersions"])
        assert (logged.source_run_id, noted["name"]) == (run_id, "shop")
        holding[int(noted["version"])] = logged.model_id
    assert sorted(holding) == [1, 2]
    assert all(holding[number] in version.source for number, version in versions.items())

    tables = ("--interactions", config.data.interactions, "--users", config.data.users)
    recsys("score", "models:/shop@champion", *tables, "--output", "scores", "--k", "3")
    assert pq.read_table("scores").num_rows == 200
    promote("shop", 2, "challenger")
    for name in ("models:/shop@challenger", "models:/shop/latest", run_id, f"runs:/{run_id}"):
        assert Bundle.open(resolve(name)).model_id == bundle.name


def test_a_model_whose_run_the_store_has_not_is_registered_without_one(
    store: str, run_dir: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    (bundle,) = (run_dir / "bundle").iterdir()
    alone = Path(shutil.copytree(bundle, tmp_path / "alone" / bundle.name))
    assert run_of(alone) is None
    client = MlflowClient(store)
    for path in (bundle, alone):
        version = register(Bundle.open(path), "runless", uri=store, alias="champion")
        assert not client.get_model_version("runless", str(version)).run_id
        assert resolve("models:/runless@champion", store).name == bundle.name


def test_a_journal_without_a_whole_line_names_no_run(run_dir: Path) -> None:
    (bundle,) = (run_dir / "bundle").iterdir()
    found = run_of(bundle)
    assert found is not None
    assert found[0] == "recsys"
    (run_dir / "journal.jsonl").write_text('{"seq": 0, "kind": "ru')
    assert run_of(bundle) is None


def test_a_server_that_is_not_there_is_named(run_dir: Path) -> None:
    (bundle,) = (run_dir / "bundle").iterdir()
    with pytest.raises(ConfigError, match=r"MLflow at http://127\.0\.0\.1:9: .*refused"):
        register(Bundle.open(bundle), "shop", uri="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("sqlite:////data/mlflow.db", True),
        ("postgresql+psycopg2://user:word@machine/mlflow", True),
        ("mysql://machine/mlflow", True),
        ("http://sqlserver:5000", False),
        ("https://mlflow.example.com/sqlite", False),
        ("databricks", False),
    ],
)
def test_a_server_is_told_from_a_database_by_its_scheme(uri: str, database: bool) -> None:
    assert is_database(uri) is database


@pytest.mark.parametrize("has_run", [True, False])
def test_a_version_shows_metrics_a_data_set_and_a_description(
    store: str,
    run_dir: Path,
    tmp_path: Path,
    has_run: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the logged model, where MLflow's page shows them; the run's own curve stays as it is."""
    from mlflow import MlflowClient

    (bundle,) = (run_dir / "bundle").iterdir()
    kept = Kept.of(Bundle.open(bundle))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client = MlflowClient(store, store)
    if has_run:
        deliver(run_dir)
    else:
        bundle = Path(shutil.copytree(bundle, tmp_path / "alone" / bundle.name))
    name = f"shown-{uuid.uuid4().hex}"
    version = register(Bundle.open(bundle), name, uri=store)

    found = client.get_model_version(name, str(version))
    assert found.description.startswith("**two_tower**, trained on `interactions`")
    ids = [one.experiment_id for one in client.search_experiments()]
    (logged,) = (one for one in client.search_logged_models(ids) if one.name == name)
    shown = {one.key: one.value for one in logged.metrics}
    assert shown == {f"test/{key}": value for key, value in kept.headline(15).items()}
    assert {one.dataset_name for one in logged.metrics} == {"interactions"}
    (run_id,) = {one.run_id for one in logged.metrics}
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    (data,) = run.inputs.dataset_inputs
    fingerprint = Bundle.open(bundle).manifest["facts"]["data_fingerprint"]
    assert (data.dataset.name, data.dataset.digest) == ("interactions", fingerprint[:36])
    assert len(client.get_metric_history(run_id, "test/ndcg_at_20")) == 1
    assert (found.run_id == run_id) == has_run
    assert (logged.source_run_id or None) == (run_id if has_run else None)
    assert capsys.readouterr().out == ""
    if is_database(store):
        return
    page = f"{store}/ajax-api/2.0/mlflow/logged-models/{logged.model_id}"
    with urllib.request.urlopen(page) as answer:
        metrics = json.load(answer)["model"]["data"]["metrics"]
    assert {one["key"]: one["value"] for one in metrics} == shown
