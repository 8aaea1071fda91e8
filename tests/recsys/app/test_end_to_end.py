"""From nothing to registered recommendations with the command line, as a new user would."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from recsys.app.cli import main
from recsys.features.dataset.dataset import prepare
from recsys.features.requests.table import request_table
from recsys.retrieval.index.graph import GraphIndex
from recsys.retrieval.index.usearch_hnsw import UsearchGraph
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.load import load_config

SMALL = ["--users", "160", "--items", "90", "--events", "4000", "--set", "training.epochs=2"]


def recsys(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{arguments}: {result.output}"
    return result


def answer(*arguments: str | Path) -> dict[str, object]:
    """Run a command with --json and parse what it prints to the output stream."""
    return dict(json.loads(recsys(*arguments, "--json").stdout))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("newcomer") / "demo"
    result = recsys("demo", "--out", out, *SMALL)
    assert "of the best reachable" in result.output
    return out


@pytest.fixture(scope="module")
def store(demo: Path) -> tuple[str, str]:
    return ("--tracking-uri", f"sqlite:///{demo / 'mlflow.db'}")


def test_the_demo_leaves_a_report_recommendations_and_a_champion(
    demo: Path, store: tuple[str, str]
) -> None:
    (report,) = demo.glob("runs/*/report.html")
    text = report.read_text()
    assert "best reachable" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    (scores,) = demo.glob("recommendations/*")
    table = pq.read_table(scores)
    assert table.num_rows == 160
    assert len(set(table.column("user_id").to_pylist())) == 160
    client = mlflow.MlflowClient(store[1])
    version = client.get_model_version_by_alias("demo", "champion")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/ndcg_at_10"] >= 0
    assert run.data.params["training.epochs"] == "2"
    assert run.data.tags["table_kernel"].startswith(f"{run.data.params['embedding.backend']} (")
    assert len(client.get_metric_history(run.info.run_id, "validation/ndcg_at_20")) == 2
    assert len(client.get_metric_history(run.info.run_id, "train/epoch_loss")) == 2
    assert run.inputs.dataset_inputs
    assert "report.html" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_registered_version_scores_like_the_batch_job(
    demo: Path, store: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = demo / "data"
    summary = answer(
        "score", "models:/demo@champion", *store, "--output", tmp_path / "scores", "--k", "9",
        "--interactions", data / "interactions", "--users", data / "users.parquet",
    )  # fmt: skip
    assert summary["users"] == 160
    batch = pq.read_table(tmp_path / "scores").sort_by("user_id")
    config = load_config(data / "recsys.yaml")
    dataset = prepare(config.schema_, config.data, config.policies, config.split)
    users = dataset.tables.users.num_rows
    requests = request_table(
        dataset.schema, dataset.tables, dataset.histories((0, 1, 2)), np.arange(users)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store[1])
    model = mlflow.pyfunc.load_model("models:/demo@champion")
    frame = requests.to_pandas()
    predicted = model.predict(frame, params={"k": 9}).sort_values("user_id")
    assert [list(items) for items in predicted["items"]] == batch.column("items").to_pylist()


def test_own_tables_from_init_to_promotion(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = demo / "data"
    recsys("init", data / "interactions", data / "items.parquet", data / "users.parquet")
    checked = answer("check", "recsys.yaml")
    assert checked["rows"]["interactions"] == 4000  # type: ignore[index,call-overload]
    settings = ("--set", "training.epochs=1", "--set", "index.kind=usearch")
    store = ("--tracking-uri", "sqlite:///own.db")
    trained = answer("train", "recsys.yaml", *settings, *store)
    run_id, bundle = str(trained["run_id"]), str(trained["bundle"])
    assert mlflow.MlflowClient("sqlite:///own.db").get_run(run_id).info.status == "FINISHED"
    kept = load_config(Path(str(trained["run_dir"])) / "config.yaml").tracking.uri
    assert kept == f"sqlite:///{tmp_path / 'own.db'}"  # a resumed run goes on there
    assert not Path("mlflow.db").exists()
    index = Scorer.open(Path(bundle)).index
    assert isinstance(index, GraphIndex)
    assert isinstance(index.graph, UsearchGraph)
    first = answer("register", bundle, "--name", "shop", *store)
    second = answer("register", bundle, "--name", "shop", "--alias", "challenger", *store)
    assert (first["version"], second["version"]) == (1, 2)
    recsys("promote", "shop", "2", *store)
    evaluated = answer("evaluate", run_id, *store, "--out", "again.html")
    assert Path("again.html").stat().st_size > 50_000
    assert evaluated["metrics"] == trained["metrics"]  # the same model on the same rows
    for library in ("faiss", "usearch"):
        out = ("--to", library, "--out", f"ann {library}")
        exported = answer("export", "models:/shop@champion", *store, *out)
        assert float(exported["recall_at_10"]) >= 0.95  # type: ignore[arg-type]
        assert Path(f"ann {library}/index.{library}").is_file()
    answer("export", bundle, "--to", "parquet", "--out", "vectors")
    vectors = pq.read_table("vectors/vectors.parquet")
    assert vectors.column_names == ["item_id", "vector"]
    again = CliRunner().invoke(main, ["export", bundle, "--to", "exact", "--out", "ann faiss"])
    assert again.exit_code == 2
    assert "never overwritten" in again.output
    lost = CliRunner().invoke(main, ["promote", "shop", "7", *store])
    assert lost.exit_code == 4
