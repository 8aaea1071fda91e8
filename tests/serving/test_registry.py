"""The registry against real MLflow on SQLite, with small bundles and a stand-in for the scorer."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.bundle.directory import Bundle, write_bundle
from recsys.core.errors import ConfigError, IntegrityError, NotFoundError
from recsys.core.tracking_store import RUN_KEY, first_use
from recsys.embeddings.table import TableConfig
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import (
    read_description,
    read_schema,
    write_description,
    write_metrics,
)
from recsys.features.tables.sources import Policies
from recsys.models.two_tower import TwoTowerConfig
from recsys.serving.recommend.filters import Filters
from recsys.serving.registry import promote, register, resolve

SCHEMA = {
    "interactions": {"user": "user", "item": "item"},
    "features": [{"name": "item", "table": "items", "kind": "categorical"}],
}
BIG = 2**53 + 1


@pytest.fixture
def store(mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "run" / "bundle", "weights")


def make_bundle(parent: Path, weights: str) -> Bundle:
    def write(folder: Path) -> None:
        probe = pa.table(
            {
                "user": pa.array([BIG, 7], pa.int64()),
                "age": pa.array([33.0, None]),
                "region": pa.array(["west", None]).dictionary_encode(),
                "history": pa.array([["a", "b"], []], pa.large_list(pa.string())),
                "expected_items": pa.array([["c"], []]),
                "expected_scores": pa.array([[0.5], []]),
            }
        )
        pq.write_table(probe, folder / "probe.parquet")
        (folder / "schema.json").write_text(json.dumps(SCHEMA))
        described = ModelDescription(
            TwoTowerConfig(), TableConfig(), Policies(), (), space_id="space"
        )
        write_description(folder, described)
        (folder / "index").mkdir()
        (folder / "index" / "index.json").write_text('{"kind": "usearch"}')
        (folder / "weights.safetensors").write_text(weights)
        write_metrics(folder, {"test": {"ndcg_at_10": 0.5}})

    facts = {"kind": "test", "data_fingerprint": "f" * 64}
    return Bundle.open(write_bundle(parent, write, facts=facts))


def version_files(store: str) -> list[Path]:
    root = Path(store.removeprefix("sqlite:///")).parent / "mlruns"
    return sorted(root.rglob("weights.safetensors"))


def test_what_is_registered_comes_back_by_every_name(
    store: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "false")
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run_id = client.create_run("0", tags={RUN_KEY: "0f" * 16}).info.run_id
    started = {"kind": "run", "experiment": "Default", "key": "0f" * 16}
    (tmp_path / "run" / "journal.jsonl").write_text(json.dumps(started) + "\n")
    newer = make_bundle(tmp_path / "newer", "other weights")
    assert register(bundle, "shop", uri=store, alias="champion") == 1
    assert register(newer, "shop", uri=store) == 2
    names = ["models:/shop@champion", "models:/shop/1", run_id, f"runs:/{run_id}"]
    for name in names:
        found = Bundle.open(resolve(name, store))
        assert (found.model_id, found.text("weights.safetensors")) == (bundle.model_id, "weights")
    assert resolve("models:/shop/latest", store).name == newer.model_id
    assert resolve(str(tmp_path / "run")) == resolve(str(bundle.path)) == bundle.path
    promote("shop", 2, "champion", uri=store)
    assert resolve("models:/shop@champion").name == newer.model_id

    version = client.get_model_version("shop", "1")
    assert (version.status, version.run_id) == ("READY", run_id)
    assert version.tags["model_id"] == bundle.model_id
    assert len(version.tags["manifest_sha256"]) == 64


def test_a_damaged_bundle_is_refused_going_in_and_coming_out(
    store: str, bundle: Bundle, tmp_path: Path
) -> None:
    register(bundle, "shop", uri=store, alias="champion")
    (stored,) = version_files(store)
    stored.write_text("veights")
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        resolve("models:/shop@champion", store)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        promote("shop", 1, "other", uri=store)
    (bundle.path / "weights.safetensors").write_text("veights")
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        register(bundle, "shop", uri=store)
    from mlflow import MlflowClient

    assert len(MlflowClient(store).search_model_versions("name='shop'")) == 1


def test_another_bundle_under_the_versions_files_is_refused(
    store: str, bundle: Bundle, tmp_path: Path
) -> None:
    register(bundle, "shop", uri=store)
    (stored,) = version_files(store)
    shutil.rmtree(stored.parent)
    shutil.copytree(make_bundle(tmp_path / "other", "other").path, stored.parent)
    with pytest.raises(IntegrityError, match=rf"registered as bundle {bundle.model_id}"):
        resolve("models:/shop/1", store)


def test_a_damaged_cache_is_fetched_again(store: str, bundle: Bundle) -> None:
    register(bundle, "shop", uri=store)
    cached = resolve("models:/shop/1", store)
    (cached / "weights.safetensors").write_text("veights")
    assert Bundle.open(resolve("models:/shop/1", store)).text("weights.safetensors") == "weights"


def test_a_kill_anywhere_leaves_no_version_without_its_bundle(
    store: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    calls = (
        "create_registered_model create_experiment create_logged_model log_model_artifacts "
        "finalize_logged_model create_run log_inputs log_batch set_terminated "
        "get_model_version_download_uri create_model_version set_registered_model_alias"
    )
    client = MlflowClient(store)

    def dying(call: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if after:
                call(*args, **kwargs)
            raise KeyboardInterrupt

        return wrapper

    deaths = 0
    for name in calls.split():
        for after in (False, True):
            with monkeypatch.context() as patch, pytest.MonkeyPatch.context() as _:
                patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name), after))
                try:
                    register(bundle, "shop", uri=store, alias="champion")
                except KeyboardInterrupt:
                    deaths += 1
            for version in client.search_model_versions("name='shop'"):
                assert resolve(f"models:/shop/{version.version}", store).name == bundle.model_id
    assert deaths >= 12
    assert len({p.name for p in version_files(store)}) == 1


def test_a_project_that_was_moved_brings_its_files_or_is_told(
    tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", "weights")
    old, new = tmp_path / "mlruns" / "old", tmp_path / "new"
    old.mkdir(parents=True)
    shutil.copy(mlflow_template, old / "mlflow.db")
    register(bundle, "shop", uri=f"sqlite:///{old / 'mlflow.db'}")
    old.rename(new)
    monkeypatch.chdir(new)
    assert resolve("models:/shop/1", cache=tmp_path / "one").name == bundle.model_id
    (new / "mlruns").rename(new / "away")
    message = rf"models:/shop/1: its files were at {old}/mlruns/.* without mlruns\? Put that folder"
    with pytest.raises(NotFoundError, match=message):
        resolve("models:/shop/1", cache=tmp_path / "two")


def test_concurrent_registrations_get_versions_of_their_own(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "weights")
    database = tmp_path / "empty" / "mlflow.db"
    uri = f"sqlite:///{database}"
    with ThreadPoolExecutor(6) as pool:
        with first_use(uri):  # whoever creates the tables does so alone
            waiting = [pool.submit(register, bundle, "shop", uri=uri) for _ in range(6)]
            time.sleep(0.3)
            assert not database.exists()
        versions = [done.result() for done in waiting]
    assert sorted(versions) == [1, 2, 3, 4, 5, 6]


def test_what_is_not_there_is_answered_with_what_is_near(
    store: str, bundle: Bundle, tmp_path: Path
) -> None:
    register(bundle, "shop", uri=store, alias="champion")
    (tmp_path / "recommender").mkdir()
    for reference, message in {
        "models:/shpo@champion": r"no registered model 'shpo' \(did you mean 'shop'\?\)",
        "models:/shop@champoin": r"no alias 'champoin' \(did you mean 'champion'\?\).*@champion",
        "models:/shop/7": r"no version '7'; versions: 1, aliases: @champion",
        "models:/shop": r"name one; versions: 1",
        "f" * 32: r"no registered version; register its bundle first",
        "recomender": r"no folder here \(did you mean 'recommender'\?\).*models:/name@alias",
        str(tmp_path / "recommender"): r"manifest\.json is missing",
    }.items():
        with pytest.raises(NotFoundError, match=message):
            resolve(reference, store)
    with pytest.raises(NotFoundError, match=r"no MLflow store at .*nothing\.db"):
        resolve("models:/shop/1", f"sqlite:///{tmp_path / 'nothing.db'}")
    with pytest.raises(NotFoundError, match=r"no version '9'"):
        promote("shop", 9, "champion", uri=store)
    with pytest.raises(ConfigError, match=r"alias 'latest' is reserved.*'champion'"):
        register(bundle, "shop", uri=store, alias="latest")
    with pytest.raises(ConfigError, match=r"MLflow at sqlite"):
        register(bundle, "a/b:c", uri=store)


class Scorer:
    """Stands for `recsys.serving.recommend.scorer.Scorer`: echoes what it was asked."""

    def __init__(self, path: Path) -> None:
        self.bundle = Bundle.open(path)
        self.schema, self.policies = read_schema(self.bundle), Policies()
        self.item_ids = pa.array(["a", "b", "x"])
        self.description = read_description(self.bundle)

    @classmethod
    def open(cls, path: Path) -> "Scorer":
        return cls(path)

    def score(
        self,
        requests: pa.Table,
        k: int,
        filter_seen: bool,
        probability: bool,
        cut: bool,
        origin: Any,
        filters: Filters,
    ) -> pa.Table:
        assert (probability, cut, origin.name) == (False, False, "the model input")
        assert filters.counts()["passing_items"] == 3
        kept = requests.column("history").to_pylist()
        types = None if filter_seen else str(requests.schema.types)
        return pa.table(
            {
                "user": requests.column("user"),
                "items": pa.array([[*items, "x"][:k] for items in kept], pa.list_(pa.string())),
                "scores": pa.array([[0.5]] * len(kept), pa.list_(pa.float32())),
                "reason": pa.array([types] * len(kept)),
            }
        )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.serving.answering.lists.Scorer", Scorer)


@pytest.mark.usefixtures("stand_in")
def test_mlflow_loads_and_asks_the_model(
    store: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    register(bundle, "shop", uri=store, alias="champion")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    model = mlflow.pyfunc.load_model("models:/shop@champion")
    info = model.metadata
    assert info.signature.params.to_dict()[0]["default"] == 20
    assert any(line.startswith("usearch==") for line in model_requirements(store))
    assert not any("+" in line for line in model_requirements(store))
    assert {str(field.type) for field in info.signature.inputs} == {"Any"}
    assert info.metadata["columns"]["region"] == "string"
    example = info.load_input_example(str(Path(version_files(store)[0]).parents[2]))
    assert example["user"].tolist() == [BIG, 7]
    assert example["history"].tolist() == [["a", "b"], []]

    frame = pd.DataFrame({"user": [BIG, 7], "history": [["a", "b"], []], "age": [1.0, None]})
    answer = model.predict(frame, params={"k": 2})
    assert answer["user"].tolist() == [BIG, 7]
    assert answer["items"].tolist() == [["a", "b"], ["x"]]
    assert answer["reason"].tolist() == [None, None]
    bare = model.predict(pd.DataFrame({"user": [3]}), params={"filter_seen": False})
    assert bare["items"].tolist() == [["x"]]
    assert "large_list" in bare["reason"][0]


def test_a_model_brings_the_package_that_it_needs(
    store: str, bundle: Bundle, tmp_path: Path
) -> None:
    register(bundle, "shop", uri=store)
    folder = model_folder(store)
    (own,) = (line for line in model_requirements(store) if "recsys" in line)
    assert f"- {own}\n" in (folder / "conda.yaml").read_text()
    installer = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    there = tmp_path / "there"
    subprocess.run([*installer, "--target", there, own], cwd=folder, check=True)
    shown = "import recsys, recsys.serving.pyfunc; print(recsys.__file__)"
    alone = [sys.executable, "-c", shown]
    out = subprocess.run(
        alone, env={"PYTHONPATH": str(there)}, capture_output=True, text=True, check=True
    )
    assert out.stdout.startswith(str(there))


def model_folder(store: str) -> Path:
    return Path(version_files(store)[0]).parents[2]


def model_requirements(store: str) -> list[str]:
    return (model_folder(store) / "requirements.txt").read_text().splitlines()


def test_the_module_imports_no_mlflow() -> None:
    heavy = "{'mlflow', 'torch', 'pandas'}"
    code = f"import sys, recsys.serving.registry; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
