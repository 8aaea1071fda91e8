"""`train --final` from the command line and from Python: registry, promotion, stopped runs."""

import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle, bundles_of_run
from recsys.bundle.weights import load_tensors
from recsys.core.errors import ConfigError, NotBetterError, NotFoundError
from recsys.core.events import Event, StepDone
from recsys.core.signals import Terminated
from recsys.features.bundle.files import TRAIN_COUNT, read_items, read_weights
from recsys.features.bundle.measured import Kept
from recsys.serving.registry import holder_of

KEYS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "items": "items.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "items": {"key": "item"},
        "features": [{"name": "item", "table": "items", "kind": "categorical"}],
    },
    "split": {"kind": "leave_one_out"},
    "model": {"kind": "two_tower", "dim": 8, "hidden": [8], "history_length": 6},
    "embedding": {"num_rows": 128, "dim": 4, "backend": "torch"},
    "training": {
        "batch_size": 64,
        "epochs": 2,
        "uniform_negatives": 8,
        "metric": "ndcg_at_5",
        "precision": "float32",
        "checkpoint_every": 5,
    },
    "evaluation": {"ks": [5], "bootstrap_samples": 20, "baselines": ["popularity"]},
    "tracking": {"enabled": False},
}
PLAIN: dict[str, Any] = {
    **{name: one for name, one in KEYS.items() if name != "embedding"},
    "model": {"kind": "item_knn"},
    "training": {"metric": "ndcg_at_5"},
}
NUM_ITEMS = 25


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks of 80 users through a catalogue."""
    folder = tmp_path_factory.mktemp("walks")
    rng = np.random.default_rng(3)
    starts = rng.integers(0, NUM_ITEMS, 80)
    rows = [
        (f"u{user:02}", f"i{(start + step) % NUM_ITEMS:02}", 1_700_000_000 + 100 * step + user)
        for user, start in enumerate(starts)
        for step in range(8)
    ]
    pd.DataFrame(rows, columns=["user", "item", "at"]).to_parquet(folder / "log.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(NUM_ITEMS)]})
    items.to_parquet(folder / "items.parquet")
    return folder


@pytest.fixture
def project(
    data: Path, mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with tables, configurations and an MLflow database, which is the working folder."""
    folder = tmp_path / "project"
    shutil.copytree(data, folder)
    shutil.copy(mlflow_template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    for name, keys in (("towers", KEYS), ("plain", PLAIN)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(keys))
    return folder


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def counts(bundle: str | Path) -> int:
    return sum(read_items(Bundle.open(Path(bundle)))[TRAIN_COUNT].to_pylist())


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load_tensors(read_weights(Bundle.open(path))) for path in (one, other))
    return torch.equal(ours[0], theirs[0]) and all(
        torch.equal(weight, theirs[1][name]) for name, weight in ours[1].items()
    )


def test_one_command_trains_twice_and_two_commands_do_the_same(project: Path) -> None:
    both = command("train", "towers.yaml", "--final", "--json")
    assert both.exit_code == 0, both.output
    found = json.loads(both.stdout)
    assert found["metrics"] == {}
    assert found["chosen"]["metrics"]["two_tower"]["ndcg_at_5"] > 0
    assert counts(found["bundle"]) == 80 * 8 > counts(found["chosen"]["bundle"])
    alone = command("train", "--final", "--from", found["chosen"]["run_dir"])
    assert alone.exit_code == 0, alone.output
    said = " ".join(alone.stdout.split())
    assert (
        "nothing was held out: there are no test figures of this model; its settings were" in said
    )
    assert f"chosen by run {Path(found['chosen']['run_dir']).name}" in said
    last = sorted(path for path in Path("runs").iterdir())[-1]
    (bundle,) = bundles_of_run(last)
    assert same_weights(bundle, Path(found["bundle"]))
    with_config = command(
        "train", "towers.yaml", "--final", "--from", found["chosen"]["bundle"], "--set", "output=o"
    )
    assert with_config.exit_code == 0, with_config.output
    assert [*Path("o").iterdir()]
    other = command(
        "train", "towers.yaml", "--final", "--from", found["bundle"], "--set", "model.dim=4"
    )
    assert other.exit_code == 2
    assert "differ in model.dim: what was chosen for one is not for the other" in other.stderr
    changed = command("train", "--final", "--from", found["bundle"], "--set", "training.epochs=9")
    assert (changed.exit_code, "differ in training.epochs" in changed.stderr) == (2, True)


def test_the_key_final_of_a_configuration_does_the_same(project: Path) -> None:
    chosen = recsys.train("plain.yaml", quiet=True)
    named = recsys.Config.open("plain.yaml").with_(final=str(chosen.path))
    run = recsys.train(named, quiet=True)
    assert counts(run.bundle) == 80 * 8
    assert recsys.train("plain.yaml", final=chosen, quiet=True).bundle.name == run.bundle.name
    # The configuration of a final run trains the same again.
    again = recsys.train(run.path / "config.yaml", quiet=True)
    assert again.bundle.name == run.bundle.name


@pytest.fixture
def store(project: Path) -> Any:
    """A client of the project's database; runs are tracked there and registered as `shop`."""
    from mlflow import MlflowClient

    tracked = {**PLAIN, "tracking": {"enabled": True, "model_name": "shop"}}
    (project / "plain.yaml").write_text(yaml.safe_dump(tracked))
    return MlflowClient()


def test_run_and_version_are_marked_and_hold_no_test_figures(project: Path, store: Any) -> None:
    run = recsys.train("plain.yaml", final=True, quiet=True)
    assert run.chosen is not None
    assert (run.chosen.version, run.version) == (1, 2)
    chosen_id = run.chosen.bundle.name
    tracked = store.get_run(run.run_id)
    marks = {name: tracked.data.tags[name] for name in ("final", "trained_on", "chosen_by")}
    assert marks == {"final": "true", "trained_on": "all rows", "chosen_by": chosen_id}
    assert not [name for name in tracked.data.metrics if name.startswith(("test", "validation"))]
    before, version = (store.get_model_version("shop", number) for number in ("1", "2"))
    assert {name: version.tags[name] for name in marks} == marks
    assert not set(marks) & set(before.tags)
    kept = Kept.of(Bundle.open(run.chosen.bundle))
    own, _, of_chosen = version.description.partition("**Final model**")
    assert "on the test part" not in own
    assert f"run {run.chosen.path.name} (model {chosen_id}) chose its settings" in of_chosen
    assert "is of the run that chose, not of this model" in of_chosen
    assert f"| ndcg_at_5 (decides) | {kept.test['ndcg_at_5']:.4f}" in of_chosen


def test_the_run_that_chose_is_compared_in_place_of_a_final_version(
    project: Path, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "recsys")
    popular = recsys.Config.open("plain.yaml").with_({"model.kind": "popularity"})
    recsys.train(popular, quiet=True)  # version 1
    run = recsys.train("plain.yaml", final=True, quiet=True)
    assert run.chosen is not None
    assert run.version == 3
    recsys.promote("shop", 1)
    done = recsys.promote("shop", 3, if_better="ndcg_at_5")
    assert (done.before, holder_of("shop", "champion")) == (1, 3)
    between = recsys.compare(["models:/shop/1", run.chosen], metric="ndcg_at_5")
    assert done.gain is not None
    assert done.gain.mean == pytest.approx(between.gain(between.trained[1].name).mean)
    words = f"models:/shop/3 was trained on all rows: compared is run {run.chosen.path.name}"
    assert words in caplog.text
    # Trained again on newer rows with the same settings there is nothing to compare.
    again = recsys.train(final="models:/shop/3", quiet=True)
    recsys.register(again, "other")
    with pytest.raises(NotBetterError, match="has the settings of version 3, which holds the"):
        recsys.promote("shop", 2, if_better="ndcg_at_5")
    # The folder of the run that chose is gone: the registry has that model, too.
    shutil.rmtree(run.chosen.path)
    recsys.promote("shop", 1)
    assert recsys.promote("shop", 3, if_better="ndcg_at_5").gain == done.gain


def test_a_final_version_without_its_chooser_is_promoted_without_a_comparison_only(
    project: Path,
) -> None:
    run = recsys.train("plain.yaml", final=True, quiet=True)
    assert run.chosen is not None
    popular = recsys.Config.open("plain.yaml").with_({"model.kind": "popularity"})
    for one in (recsys.train(popular, quiet=True), run):
        recsys.register(one, "shop")
    recsys.promote("shop", 1)
    shutil.rmtree(run.chosen.path)
    with pytest.raises(NotFoundError, match="is neither in its folder nor registered: register it"):
        recsys.promote("shop", 2, if_better="ndcg_at_5")
    assert recsys.promote("shop", 2).version == 2


class StopAt:
    """Sends SIGTERM at a step of some training, counted from 1, the trainings from 0."""

    def __init__(self, training: int, step: int) -> None:
        self.training, self.step, self.seen = training, step, -1

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.seen += event.global_step == 1
            if (self.seen, event.global_step) == (self.training, self.step):
                signal.raise_signal(signal.SIGTERM)


def test_a_stopped_final_training_ends_with_the_same_bits(project: Path) -> None:
    whole = recsys.train("towers.yaml", final=True, quiet=True)
    assert whole.chosen is not None
    with pytest.raises(Terminated):
        recsys.train(final=whole.chosen, quiet=True, listener=StopAt(0, 7))
    stopped = sorted(path for path in Path("runs").iterdir())[-1]
    assert not bundles_of_run(stopped)
    resumed = recsys.train(resume=stopped, quiet=True)
    assert resumed.path == stopped
    assert same_weights(resumed.bundle, whole.bundle)
    assert Kept.of(Bundle.open(resumed.bundle)).chosen_by is not None


def test_what_is_stopped_before_the_final_training_goes_on_to_it(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "recsys")
    with pytest.raises(Terminated):
        recsys.train("towers.yaml", final=True, quiet=True, listener=StopAt(0, 3))
    assert "with --final added it goes on to the final training" in caplog.text
    (stopped,) = Path("runs").iterdir()
    run = recsys.train(resume=stopped, final=True, quiet=True)
    assert run.chosen is not None
    assert run.chosen.path == stopped
    assert counts(run.bundle) == 80 * 8
    # Of a run that is finished, only the final training is left to do.
    again = recsys.train(resume=stopped, final=True, quiet=True)
    assert again.chosen is None
    assert same_weights(again.bundle, run.bundle)


def test_several_processes_train_finally_too(project: Path) -> None:
    chosen = recsys.train("towers.yaml", quiet=True)
    words = ["train", "--final", "--from", str(chosen.path), "--workers", "2", "--json"]
    words += ["--set", f"output={project / 'ranks'}"]
    done = subprocess.run(
        [sys.executable, "-m", "recsys.app.cli", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    bundle = json.loads(done.stdout)["bundle"]
    assert counts(bundle) == 80 * 8
    kept = Kept.of(Bundle.open(Path(bundle)))
    assert kept.chosen_by is not None
    assert kept.chosen_by.model_id == chosen.bundle.name
    with pytest.raises(ConfigError, match="fitted in one process: leave --workers out"):
        recsys.train("plain.yaml", final=True, workers=2, quiet=True)


def test_a_final_training_starts_from_the_weights_that_the_chosen_one_did(project: Path) -> None:
    earlier = recsys.train("towers.yaml", quiet=True)
    run = recsys.train("towers.yaml", warm_start=earlier, final=True, quiet=True)
    assert run.chosen is not None
    for one in (run, run.chosen):
        facts = Bundle.open(one.bundle).manifest["facts"]
        assert facts["parent"] == earlier.bundle.name
