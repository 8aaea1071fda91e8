"""A search for real on small logs: what decides, what is kept, how it stops and goes on."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.core.errors import ConfigError
from recsys.core.events import PointLogged, StepDone
from recsys.core.signals import Terminated
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.ranges import Choice, Range, Space
from recsys.training.families.load import load_config
from recsys.training.search.output import lines, to_json, tuned_config
from recsys.training.search.space import space_of, values_of, with_values
from recsys.training.search.stopping import stoppable
from recsys.training.search.store import (
    DONE,
    FAILED,
    INTERRUPTED,
    PRUNED,
    Tried,
    open_search,
)
from recsys.training.search.trial import TrialPrunedError, TrialStoppedError, Watcher, trial_data
from recsys.training.search.tuning import Budget, Found, search, search_facts

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "training.batch_size": [32, 64, 128],
    "model.hidden": [[8], [16], [16, 8]],
    "embedding.dim": {"low": 2, "high": 8},
}


def clicks(folder: Path, *, stream: bool = True, test_labels: bool = True) -> Path:
    """Write 1,500 rows in given parts: `shop` says nearly everything, `colour` nothing."""
    rng = np.random.default_rng(0)
    rows = 1_500
    shop = rng.integers(0, 60, rows)
    label = rng.random(rows) < 1 / (1 + np.exp(-rng.normal(0, 3, 60)[shop]))
    part = np.repeat(["train", "validation", "test"], [1_000, 300, 200])
    if not test_labels:
        label = np.where(part == "test", ~label, label)
    columns = {
        "label": label.astype(np.int32),
        "shop": shop,
        "colour": rng.integers(0, 60, rows),
        "part": part,
        "at": np.arange(rows) + 1_600_000_000,
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    log: dict[str, Any] = {"label": {"column": "label"}}
    if not stream:
        log |= {"user": "colour", "item": "shop", "time": {"column": "at", "unit": "s"}}
    tables = ("interactions", "interactions") if stream else ("items", "users")
    raw = {
        "data": {"interactions": "rows.parquet", "stream": stream},
        "policies": {"duplicate_events": "keep"},
        "schema": {
            "interactions": log,
            "features": [
                {"name": name, "table": table, "kind": "categorical"}
                for name, table in zip(("shop", "colour"), tables, strict=True)
            ],
        },
        "split": {"kind": "column", "column": "part"},
        "model": {"kind": "mlp", "hidden": [8], "dropout": 0.0},
        "embedding": {"num_rows": 256, "dim": 4, "learning_rate": 0.05, "backend": "torch"},
        "training": {"batch_size": 64, "epochs": 4, "learning_rate": 0.001},
        "evaluation": {"bootstrap_samples": 20, "rankers": []},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def searched(config: ExperimentConfig, folder: Path, space: Any = None, **options: Any) -> Found:
    budget = Budget(options.pop("trials", None), options.pop("minutes", None))
    own = space_of(config, SPACE if space is None else space, "test")
    storage = folder / "tune.db"
    with told(options.pop("say", lambda line: None)):
        return search(config, own, budget, **{"storage": storage, "name": "test", **options})


@contextmanager
def told(say: Callable[[str], None]) -> Iterator[None]:
    """Hand what the engine logs meanwhile to `say`, a line a record."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    handler, logger = Lines(), logging.getLogger("recsys")
    logger.addHandler(handler)
    level, _ = logger.level, logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    """A configuration and a search of seven trials on it that nothing disturbed."""
    path = clicks(tmp_path_factory.mktemp("seven"))
    return path, searched(load_config(path), path.parent, trials=7)


def test_the_configuration_as_it_stands_is_the_first_trial(seven: tuple[Path, Found]) -> None:
    path, found = seven
    config = load_config(path)
    assert found.baseline.values == values_of(config, found.space)
    assert [one.number for one in found.trials] == list(range(7))
    assert {one.state for one in found.trials} <= {DONE, PRUNED}
    finished = [one for one in found.trials if one.state == DONE]
    assert found.best.value == max(one.value or 0 for one in finished)
    assert found.best.value is not None
    assert found.baseline.value is not None
    assert found.best.value > found.baseline.value + 0.01  # the planted log has room
    assert all(one.value == max(one.epochs) for one in finished)
    settings = [tuple(map(str, one.values.values())) for one in found.trials]
    assert len({*settings}) == 7


def test_the_configuration_as_it_stands_keeps_its_digits(tmp_path: Path) -> None:
    rate, width = 0.00123456789, (16, 8)
    space: Space = {"rate": Range(1e-4, 1e-1, log=True), "hidden": Choice(([8], [*width]))}
    base = {"rate": rate, "hidden": [*width]}
    with open_search(tmp_path / "a.db", "a", space=space, base=base, facts={"seed": 0}) as store:
        assert store.propose() == (0, base)
        store.done(0.5, 1.0)
        assert [one.values for one in store.trials()] == [base]
        _, drawn = store.propose()
        assert drawn["rate"] == float(f"{drawn['rate']:.4g}") != rate


def test_what_is_written_trains_to_what_is_promised(seven: tuple[Path, Found]) -> None:
    path, found = seven
    config = load_config(path)
    out = path.parent / "deeper" / "tuned.yaml"
    out.parent.mkdir()
    out.write_text(tuned_config(config, found, out, path.parent))
    text = out.read_text()
    assert f"trial {found.best.number} is the best: validation auc {found.best.value:.4f}" in text
    assert f"({found.baseline.value:.4f})" in text
    assert "the test part was not looked at" in text
    assert "interactions: ../rows.parquet" in text
    was = [line for line in text.splitlines() if "# was" in line]
    changed = [key for key, v in found.best.values.items() if v != found.baseline.values[key]]
    assert len(was) == len(changed) > 0
    tuned = load_config(out)
    assert values_of(tuned, found.space) == found.best.values
    watcher = Watcher("auc", tuned.training.epochs, lambda epoch, value: False)
    trial_data(tuned).train(tuned, (watcher,))
    assert watcher.best == found.best.value


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, seven: tuple[Path, Found]
) -> None:
    path = clicks(tmp_path)
    config = load_config(path)
    pending = ["trial 0", "trial 3", "trial 5"]  # 4 and 6 are then the ones begun again

    def say(line: str) -> None:
        if pending and line.startswith(pending[0]):
            pending.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(3):
        with pytest.raises(Terminated) as stopped:
            searched(config, tmp_path, trials=7, say=say)
        assert stopped.value.code == 143
    found = searched(config, tmp_path, trials=7)
    undisturbed = seven[1]
    for one, other in zip(found.trials, undisturbed.trials, strict=True):
        assert (one.values, one.epochs, one.state) == (other.values, other.epochs, other.state)
    assert found.baseline.number == 1


@pytest.mark.parametrize("before", [0, 4, 12])
def test_a_trial_of_a_process_that_was_killed_is_proposed_again(
    tmp_path: Path, before: int
) -> None:
    options = made(tmp_path)
    drawn = []
    for _ in range(2):
        with open_search(tmp_path / "tune.db", "one", **options) as store:
            while len(store.trials()) < before:
                _, values = store.propose()
                store.report(1, -float(values["embedding.dim"]))
                store.done(-float(values["embedding.dim"]), 1.0)
            drawn.append(store.propose()[1])  # and nothing more is heard of it
    assert drawn[0] == drawn[1]
    with open_search(tmp_path / "tune.db", "one", **options) as store:
        assert len(store.trials()) == before
        states = [one.state for one in store.trials(interrupted=True)]
        assert states == [DONE] * before + [INTERRUPTED] * 2


def made(folder: Path, **facts: Any) -> dict[str, Any]:
    """What opens a search of the small log."""
    path = folder / "recsys.yaml"
    config = load_config(path if path.is_file() else clicks(folder))
    space = space_of(config, SPACE, "test")
    return {"space": space, "base": values_of(config, space), "facts": {"seed": 0, **facts}}


def test_results_guide_what_is_proposed(tmp_path: Path) -> None:
    with open_search(tmp_path / "tune.db", "one", **made(tmp_path)) as store:
        for _ in range(40):
            _, values = store.propose()
            value = -abs(np.log10(values["training.learning_rate"]) + 1.5)
            store.report(1, value)
            store.done(value, 1.0)
        rates = [np.log10(one.values["training.learning_rate"]) for one in store.trials()]
        importance = store.importance()
    assert (
        np.abs(np.array(rates[25:]) + 1.5).mean() < np.abs(np.array(rates[1:11]) + 1.5).mean() / 2
    )
    assert next(iter(importance)) == "training.learning_rate"
    assert importance["training.learning_rate"] > 0.8
    assert sum(importance.values()) == pytest.approx(1)


def test_another_seed_proposes_other_settings(tmp_path: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        name = f"search {len(drawn)}"
        with open_search(tmp_path / "tune.db", name, **made(tmp_path, seed=seed)) as store:
            store.propose()
            store.report(1, 0.5)
            store.done(0.5, 1.0)
            drawn.append(store.propose()[1])
            assert store.importance() == {}
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_falls_behind_is_pruned_but_not_at_once(tmp_path: Path) -> None:
    with open_search(tmp_path / "tune.db", "one", **made(tmp_path)) as store:
        for level in (0.5, 0.6, 0.7, 0.8):
            store.propose()
            assert not any(store.report(epoch, level) for epoch in (1, 2, 3, 4))
            store.done(level, 1.0)
        store.propose()
        behind = [store.report(epoch, 0.64) for epoch in (1, 2, 3)]
        store.pruned(1.0)
        store.propose()
        ahead = [store.report(epoch, 0.66) for epoch in (1, 2, 3, 4)]
        store.done(0.66, 1.0)
        assert [one.state for one in store.trials()] == [DONE] * 4 + [PRUNED, DONE]
        assert store.trials()[4].value == 0.64
    assert behind == [False, False, True]
    assert not any(ahead)


def test_a_watcher_ends_what_is_to_end() -> None:
    point = {"step": 1.0, "epoch": 0.0, "validation/auc": 0.5}
    asked: list[tuple[int, float]] = []

    def prune(epoch: int, value: float) -> bool:
        asked.append((epoch, value))
        return True

    watcher = Watcher("auc", 2, prune)
    watcher(PointLogged({"step": 1.0, "epoch": 0.0, "loss": 0.1}))
    with pytest.raises(TrialPrunedError):
        watcher(PointLogged(point))
    watcher(
        PointLogged({**point, "epoch": 1.0, "validation/auc": 0.4})
    )  # the last epoch: it is done
    assert asked == [(1, 0.5), (2, 0.4)]
    assert watcher.best == 0.5

    def check() -> None:
        raise Terminated(143)

    step = StepDone(0, 1, 7, 1, 0.0, 0.0)
    told = Watcher("auc", 2, prune, check=check)
    with pytest.raises(Terminated):
        told(step)
    late = Watcher("auc", 2, prune, deadline=0.0)
    with pytest.raises(TrialStoppedError):
        late(step)


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    path = clicks(tmp_path)
    config = load_config(path, ("embedding.max_memory_mib=1", "training.clip_norm=1e30"))
    space = {
        "training.learning_rate": [0.001, 1e30],
        "embedding.num_rows": [256, 1_000_000],
    }
    found = searched(config, tmp_path, space, trials=12)
    reasons = {one.values["embedding.num_rows"]: one.reason for one in found.trials if one.reason}
    by_state = {one.state for one in found.trials}
    assert by_state == {DONE, FAILED}
    assert "embedding.max_memory_mib allows 1 MiB" in reasons[1_000_000]
    assert any("the loss of step" in one.reason for one in found.trials)
    assert found.best.value == found.baseline.value
    text = "\n".join(lines(found))
    assert "nothing better than the given configuration" in text
    assert "failed: " in text


def test_a_search_in_which_nothing_can_be_had_says_why(tmp_path: Path) -> None:
    config = load_config(
        clicks(tmp_path), ("training.learning_rate=1e30", "training.clip_norm=1e30")
    )
    space = {"embedding.dim": [4, 5], "training.batch_size": [64, 65, 66, 67, 68, 69, 70]}
    with pytest.raises(ConfigError, match=r"none of 2 trials finished; .* the loss of step"):
        assert searched(config, tmp_path, space, trials=2).best
    with pytest.raises(ConfigError, match="the last 10 trials failed; the last one: the loss of"):
        searched(config, tmp_path, space, trials=30)


def test_data_are_read_once_and_the_test_part_decides_nothing(tmp_path: Path) -> None:
    found = []
    for name, labels in (("one", True), ("other", False)):
        path = clicks(tmp_path / name, test_labels=labels)

        def say(line: str, rows: Path = path.parent / "rows.parquet") -> None:
            if line.startswith("trial 0"):
                rows.unlink()

        found.append(searched(load_config(path), path.parent, trials=3, say=say))
    first, second = ([(one.values, one.epochs) for one in each.trials] for each in found)
    assert first == second


@pytest.mark.parametrize("stream", [True, False])
def test_a_trial_trains_as_a_run_of_its_own_would(tmp_path: Path, stream: bool) -> None:
    path = clicks(tmp_path, stream=stream)
    values = {
        "training.batch_size": 100,
        "training.positive_weight": 2.0,
        "training.negative_rate": 1.0 if stream else 0.5,
        "training.id_dropout": 0.0 if stream else 0.3,
        "embedding.dim": 3,
    }
    assert both_ways(load_config(path), values)


def test_a_two_tower_trial_trains_as_a_run_of_its_own_would(config: ExperimentConfig) -> None:
    values = {
        "training.batch_size": 200,
        "training.uniform_negatives": 8,
        "model.history_length": 3,
        "model.dim": 8,
    }
    assert both_ways(config, values)


def both_ways(base: ExperimentConfig, values: dict[str, Any]) -> bool:
    """Whether `values` train alike on data opened for `base` and on data of their own."""
    varied = with_values(base, values)
    curves = []
    for opened in (base, varied):
        data = trial_data(opened, "torch")  # kernels agree to the last digits alone
        assert data.train(base, ()).history  # a trial before leaves nothing behind
        if opened is varied:
            assert data.task(varied).num_steps == data.job.task().num_steps
        state = data.train(varied, ())
        values_only = [{k: v for k, v in p.items() if k[:8] != "examples"} for p in state.history]
        curves.append(values_only)
        assert any(f"validation/{varied.training.metric}" in point for point in values_only)
    return curves[0] == curves[1]


def test_minutes_end_a_search_but_not_before_its_first_trial(tmp_path: Path) -> None:
    config = load_config(clicks(tmp_path))
    found = searched(config, tmp_path, minutes=1e-9)
    assert [one.state for one in found.trials] == [DONE]
    assert found.ended == "1e-09 minutes have passed"
    said: list[str] = []
    long = load_config(
        tmp_path / "recsys.yaml", ("training.epochs=100000", "training.patience=90000")
    )
    space = {"training.learning_rate": [0.001, 0.002, 0.003]}
    with open_search(tmp_path / "tune.db", "long", **facts_of(long, space)) as store:
        store.check_data(trial_data(long).job.fingerprint)
        store.propose()
        store.report(1, 0.5)
        store.done(0.5, 1.0)
    cut = searched(long, tmp_path, space, minutes=0.05, name="long", say=said.append)
    assert [one.state for one in cut.trials] == [DONE]  # what was cut off does not count
    assert "  cut off: the time limit is reached" in said


def facts_of(config: ExperimentConfig, raw: dict[str, Any]) -> dict[str, Any]:
    """What `search` gives to `open_search`."""
    space = space_of(config, raw, "test")
    base = values_of(config, space)
    return {"space": space, "base": base, "facts": search_facts(config, space, seed=0)}


def test_what_was_trained_before_is_not_trained_again(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "embedding.dim": [4, 5],
    }
    config = load_config(clicks(tmp_path))
    space["training.self_supervision"] = [config.training.self_supervision.model_dump()]
    found = searched(config, tmp_path, space, minutes=5)
    assert found.ended == "the space is exhausted: every proposal was tried"
    trained = [one for one in found.trials if one.repeats is None]
    assert sorted(one.values["embedding.dim"] for one in trained) == [4, 5]
    by_dim = {one.values["embedding.dim"]: one.epochs for one in trained}
    assert all(one.epochs == by_dim[one.values["embedding.dim"]] for one in found.trials)
    assert "the settings of trial" in found.trials[-1].reason
    assert len(next(line for line in lines(found) if line.startswith("trial ")).split()) == 3


def test_a_base_outside_the_space_is_tried_all_the_same(tmp_path: Path) -> None:
    space = {
        "embedding.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
        "embedding.dim": [2, 3],
    }
    found = searched(load_config(clicks(tmp_path)), tmp_path, space, trials=3)
    assert found.baseline.values == {"embedding.weight_decay": 0.03, "embedding.dim": 4}
    for one in found.trials[1:]:
        assert 1e-6 <= one.values["embedding.weight_decay"] <= 1e-2
        assert one.values["embedding.dim"] in (2, 3)


def test_another_search_under_the_same_name_is_refused(tmp_path: Path) -> None:
    path = clicks(tmp_path)
    config = load_config(path)
    searched(config, tmp_path, trials=1)
    other = load_config(path, ("training.epochs=3",))
    with pytest.raises(
        ConfigError, match=r"another one \(training.epochs: 4 before, now 3\): give"
    ):
        searched(other, tmp_path, trials=2)
    with pytest.raises(
        ConfigError, match=r"space\.training\.batch_size: \[32, 64, 128\] before, now N"
    ):
        searched(config, tmp_path, {"embedding.dim": [4, 5]}, trials=2)
    with pytest.raises(ConfigError, match="seed: 0 before, now 1"):
        searched(config, tmp_path, trials=2, seed=1)
    moved = load_config(path, (f"output={tmp_path / 'elsewhere'}", "tracking.experiment=other"))
    assert len(searched(moved, tmp_path, trials=1).trials) == 1
    assert len(searched(other, tmp_path, trials=1, name="other").trials) == 1
    clicks(tmp_path, test_labels=False)
    with pytest.raises(ConfigError, match="the search 'test' has trials on other data, which cann"):
        searched(config, tmp_path, trials=2)


def test_a_search_without_a_trial_binds_nobody(tmp_path: Path) -> None:
    with open_search(tmp_path / "tune.db", "one", **made(tmp_path)):
        pass
    with open_search(tmp_path / "tune.db", "one", **made(tmp_path, seed=1)) as store:
        store.check_data("a")
        store.check_data("b")
        store.propose()
        store.done(1.0, 1.0)
        with pytest.raises(ConfigError, match="trials on other data"):
            store.check_data("a")


def test_what_a_killed_search_left_of_a_write_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    with open_search(path, "one", **made(tmp_path)):
        pass
    code = f"""
import os, sqlite3
file = sqlite3.connect({str(path)!r})
file.execute("PRAGMA cache_size = 1")
file.execute("CREATE TABLE half (text TEXT)")
file.executemany("INSERT INTO half VALUES (?)", [("x" * 500,)] * 5000)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    subprocess.run([sys.executable, "-c", code])
    assert path.with_name("tune.db-journal").stat().st_size
    with open_search(path, "one", **made(tmp_path)) as store:
        assert store.propose() is not None


def test_a_wrong_storage_is_said_before_the_work(tmp_path: Path) -> None:
    options = made(tmp_path)

    def opened(path: Path, name: str = "one") -> None:
        with open_search(path, name, **options):
            pass

    text = tmp_path / "notes.txt"
    text.write_text("no database, but long enough to have a header " * 4)
    with pytest.raises(ConfigError, match=r"notes.txt cannot be read as SQLite .*another file"):
        opened(text)
    other = tmp_path / "mlflow.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE runs (id INT)")
    file.close()
    with pytest.raises(ConfigError, match=r"mlflow\.db is a database of something else"):
        opened(other)
    with pytest.raises(ConfigError, match=r"is a folder; give a file, as in .*tune.db"):
        opened(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere; make it first"):
        opened(tmp_path / "nowhere" / "tune.db")
    if Path("/proc/version").is_file():  # a folder that nobody can write to, root among them
        with pytest.raises(ConfigError, match="its folder cannot be written to"):
            opened(Path("/proc/tune.db"))
    (tmp_path / "empty.db").touch()
    opened(tmp_path / "empty.db")
    with (
        open_search(tmp_path / "tune.db", "one", **options),
        pytest.raises(ConfigError, match="another search is writing to it"),
    ):
        opened(tmp_path / "tune.db", "two")
    import optuna

    foreign = optuna.create_study(storage=f"sqlite:///{tmp_path / 'tune.db'}", study_name="mine")
    foreign.optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(ConfigError, match="its study 'mine' is not of `recsys tune`; give --name"):
        opened(tmp_path / "tune.db", "mine")


def test_without_optuna_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    message = r"needs the package 'optuna': pip install 'recsys-engine\[tune\]'"
    with pytest.raises(ConfigError, match=message):
        searched(load_config(clicks(tmp_path)), tmp_path, trials=1)
    assert not (tmp_path / "tune.db").exists()


@pytest.mark.parametrize(
    ("trials", "minutes", "message"),
    [
        (0, None, "at least 1 trial, got 0"),
        (3, -1.0, "more than 0 minutes, and an end; got -1"),
        (None, float("inf"), "and an end; got inf"),
        (None, float("nan"), "and an end; got nan"),
    ],
)
def test_a_budget_has_an_end(trials: int | None, minutes: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(trials, minutes)


def test_ranks_and_unknown_metrics_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clicks(tmp_path)
    with pytest.raises(ConfigError, match=r"training\.metric: 'log_loss' is not computed"):
        searched(load_config(path, ("training.metric=log_loss",)), tmp_path, trials=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a search runs in one process"):
        searched(load_config(path), tmp_path, trials=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_a_training_kept_to_itself_is_not_lost(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable() as check:
        check()
        kept = signal.signal(number, lambda *_: None)  # as a training does
        os.kill(os.getpid(), number)
        signal.signal(number, kept)
        with pytest.raises(Terminated) as stopped:
            check()
        assert stopped.value.code == 128 + number
        with pytest.raises(Terminated):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    checked: list[bool] = []

    def work() -> None:
        with stoppable() as check:
            check()
            checked.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert checked == [True]


def test_the_table_shows_the_best_next_to_the_given_configuration() -> None:
    space: Space = {"model.dim": Choice((8, 16, 32))}
    trials = [
        Tried(0, {"model.dim": 8}, DONE, 0.5, (0.4, 0.5)),
        Tried(1, {"model.dim": 16}, PRUNED, 0.7, (0.7,)),
        Tried(2, {"model.dim": 32}, DONE, 0.6, (0.6, 0.55)),
        Tried(3, {"model.dim": 16}, FAILED, 0.9, (0.9,), reason="the loss is nan"),
    ]
    found = Found("auc", space, trials, {"model.dim": 1.0}, "4 of 4 trials are done", Path("runs"))
    shown = lines(found)
    assert [line.split() for line in shown[:6]] == [
        ["trial", "0", "2", "1"],
        ["as", "given", "best"],
        ["auc", "0.5000", "0.6000", "0.7000"],
        ["epochs", "2", "2", "1"],
        ["ended", "done", "done", "pruned"],
        ["model.dim", "8", "32", "16"],
    ]
    assert shown[7:] == [
        "4 trials: 2 done, 1 pruned, 1 failed; 4 of 4 trials are done",
        "trial 3 failed: the loss is nan",
        "what auc depends on (PED-ANOVA): model.dim 100%",
        "trial 2 is the best: validation auc 0.6000, +0.1000 against the given "
        "configuration (0.5000)",
        "the best of 4 validation values is an optimistic one, and another seed would move them "
        "all; the test part was not looked at",
    ]
    plain = to_json(found)
    assert (plain["best"]["number"], plain["baseline"]["number"]) == (2, 0)
    assert plain["space"] == {"model.dim": [8, 16, 32]}
    equal = Found("auc", space, [trials[0], Tried(1, {}, DONE, 0.5)], {}, "", Path())
    assert equal.best.number == 0


def test_all_trials_have_one_kernel_however_the_machine_is_now(tmp_path: Path) -> None:
    adagrad = ("embedding.optimizer=row_wise_adagrad", "embedding.weight_decay=0")
    config = load_config(clicks(tmp_path), ("embedding.backend=auto", *adagrad))
    for kernel, table in (("torch", "TorchTable"), ("fbgemm", "FbgemmTable")):
        data = trial_data(config, kernel)  # type: ignore[arg-type]
        assert type(data.task(config).trained.table).__name__ == table
        decayed = with_values(config, {"embedding.weight_decay": 0.1})
        assert type(data.task(decayed).trained.table).__name__ == "TorchTable"
    said: list[str] = []
    for trials in (1, 2):
        searched(config, tmp_path, trials=trials, say=said.append)
    assert len([line for line in said if line.startswith("table kernel")]) == 1
