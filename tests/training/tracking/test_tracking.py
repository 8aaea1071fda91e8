"""Tracking against real MLflow on SQLite, servers that are down, and answers that get lost."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ConfigError, IntegrityError, NotFoundError
from recsys.core.tracking_store import first_use, http_limits
from recsys.training.config.sections import TrackingConfig
from recsys.training.tracking import background
from recsys.training.tracking.journal import DAMAGED, Journal, read
from recsys.training.tracking.run import Delivered, Tracker, deliver, start_run

STEPS = 30


@pytest.fixture
def store(mlflow_template: Path, tmp_path: Path) -> str:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def absent_server() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def train(uri: str, run_dir: Path, **options: Any) -> tuple[Tracker, float]:
    """Track a small training; return also the longest time a call took."""
    longest = 0.0

    def timed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal longest
        start = time.perf_counter()
        result = call(*args, **kwargs)
        longest = max(longest, time.perf_counter() - start)
        return result

    (run_dir / "bundle").mkdir(parents=True, exist_ok=True)
    (run_dir / "bundle" / "manifest.json").write_text("{}")
    (run_dir / "report.html").write_text("<p>report</p>")
    config = TrackingConfig(uri=uri, experiment="tests", **options)
    params = {"model.dim": 64, "text": "x" * 7000}
    tracker = timed(start_run, config, run_dir=run_dir, name="first", params=params)
    timed(tracker.dataset, "training", "f" * 64, {"users": "9"})
    for step in range(STEPS):
        timed(tracker.metrics, {"train/loss": 1 / (step + 1), "recall@10": 0.5}, step)
    timed(tracker.metrics, {"train/loss": float("nan"), "rate": float("inf")}, STEPS)
    timed(tracker.artifact, run_dir / "report.html")
    timed(tracker.artifact, run_dir / "bundle", "bundle")
    timed(tracker.tag, "model_id", "old")
    timed(tracker.tag, "model_id", "0123456789abcdef")
    return tracker, longest


def check_arrived_once(uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    run_id = run.info.run_id
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["model.dim"] == "64"
    assert len(run.data.params["text"]) == 6000
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [
        (step, 1 / (step + 1)) for step in range(STEPS)
    ]
    assert len(client.get_metric_history(run_id, "recall_10")) == STEPS
    assert run.data.tags["not_finite/train/loss"] == f"nan at step {STEPS}"
    assert run.data.tags["not_finite/rate"] == f"inf at step {STEPS}"
    assert run.data.tags["model_id"] == "0123456789abcdef"
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == "f" * 36
    assert '"users": "9"' in dataset.dataset.profile
    assert {file.path for file in client.list_artifacts(run_id)} == {"report.html", "bundle"}
    assert [f.path for f in client.list_artifacts(run_id, "bundle")] == ["bundle/manifest.json"]


def test_a_run_arrives_whole_and_once(store: str, tmp_path: Path) -> None:
    tracker, longest = train(store, tmp_path / "run")
    tracker.finish("FINISHED")
    assert longest < 0.1
    assert tracker.run_id is not None
    check_arrived_once(store)
    assert deliver(tmp_path / "run") == Delivered(0, 0)
    assert (tmp_path / "mlruns").is_dir()


@pytest.mark.parametrize("server", ["absent_server", "silent_server"])
def test_a_dead_server_costs_training_nothing(
    server: str, request: pytest.FixtureRequest, store: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(background, "SERVER_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(background, "CALL_SECONDS", 2)
    uri, run_dir = request.getfixturevalue(server), tmp_path / "run"
    import mlflow  # noqa: F401  # the import is not what is timed

    tracker, longest = train(uri, run_dir)
    start = time.perf_counter()
    tracker.finish("FINISHED")
    assert longest < 0.1
    assert time.perf_counter() - start < 2
    assert tracker.run_id is None
    total = len(list(read(run_dir)))
    assert deliver(run_dir, store) == Delivered(total, 0)
    check_arrived_once(store)
    assert deliver(run_dir, store) == Delivered(0, 0)


@pytest.mark.parametrize("answered", [False, True], ids=["refused", "done, but the answer is lost"])
def test_every_call_fails_once_and_all_arrives_once(
    answered: bool, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    run_dir = tmp_path / "run"
    train("http://127.0.0.1:9", run_dir, enabled=False)[0].finish("FINISHED")
    failures = 0

    def failing_once(name: str) -> Callable[..., Any]:
        call, failed = getattr(MlflowClient, name), set()

        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal failures
            what = str(args[1:]) + str(kwargs.keys())
            fails = what not in failed
            failed.add(what)
            result = call(self, *args, **kwargs) if answered or not fails else None
            if fails:
                failures += 1
                raise ConnectionError(f"{name} lost")
            return result

        return wrapper

    calls = "create_experiment create_run log_batch log_inputs log_artifact log_artifacts"
    for name in [*calls.split(), "set_terminated"]:
        monkeypatch.setattr(MlflowClient, name, failing_once(name))
    for _ in range(20):
        delivered = deliver(run_dir, store)
        if delivered.left == 0:
            break
        assert "lost" in delivered.why
    assert failures >= 7
    check_arrived_once(store)


def test_a_killed_run_goes_on_where_its_journal_ends(store: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    off = TrackingConfig(enabled=False, uri=store, experiment="tests")
    killed = start_run(off, run_dir=run_dir, name="first", params={})
    killed.metrics({"loss": 3.0}, 1)
    killed.metrics({"loss": 2.0}, 2)
    killed.journal.file.write(b'{"seq": 3, "kind": "met')  # half a line, then the kill
    killed.journal.file.close()
    resumed = start_run(off, run_dir=run_dir, name="other", params={"a": 1})
    resumed.metrics({"loss": 2.0}, 2)
    resumed.metrics({"loss": 1.0}, 3)
    resumed.finish("FINISHED")
    resumed.metrics({"loss": 0.0}, 4)  # too late, and yet no error
    assert [record["seq"] for record, _ in read(run_dir)] == list(range(6))
    assert deliver(run_dir).left == 0

    from mlflow import MlflowClient

    client = MlflowClient(store)
    (run,) = client.search_runs(["1"])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")


def test_what_the_store_refuses_is_named_and_skipped(store: str, tmp_path: Path) -> None:
    off = TrackingConfig(enabled=False, uri=store)
    tracker = start_run(off, run_dir=tmp_path, name="first", params={})
    for step in range(5):
        tracker.metrics({"loss": 1.0}, step)
    tracker.journal.append(
        {"kind": "metrics", "time": 1, "step": 5, "values": {"a@b": 1.0, "c": 2.0}}
    )
    tracker.artifact(tmp_path / "nowhere.html")
    tracker.finish()
    delivered = deliver(tmp_path)
    assert (delivered.left, len(delivered.problems)) == (0, 2)
    assert "a@b" in delivered.problems[0]
    assert "nowhere.html" in delivered.problems[1]

    from mlflow import MlflowClient

    (run,) = MlflowClient(store).search_runs(["1"])
    assert run.data.metrics == {"loss": 1.0, "c": 2.0}


def test_more_metrics_than_a_batch_takes(store: str, tmp_path: Path) -> None:
    off = TrackingConfig(enabled=False, uri=store)
    tracker = start_run(
        off, run_dir=tmp_path, name="first", params={f"p{n}": n for n in range(150)}
    )
    tracker.metrics({f"m{number}": 1.0 for number in range(1200)}, 0)
    tracker.finish()
    assert deliver(tmp_path).left == 0

    from mlflow import MlflowClient

    (run,) = MlflowClient(store).search_runs(["1"])
    assert (len(run.data.metrics), len(run.data.params)) == (1200, 150)


def test_whoever_creates_the_tables_does_so_alone(store: str, tmp_path: Path) -> None:
    off = TrackingConfig(enabled=False, uri=store)
    start_run(off, run_dir=tmp_path, name="first", params={}).finish()
    with ThreadPoolExecutor(1) as pool:
        with first_use(store):
            waiting = pool.submit(deliver, tmp_path)
            time.sleep(0.2)
            assert not waiting.done()
        assert waiting.result() == Delivered(2, 0)


def test_the_users_own_limits_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with http_limits(retries=0, timeout=5):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_full_disk_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = TrackingConfig(enabled=False)
    tracker = start_run(off, run_dir=tmp_path, name="first", params={})

    def full(self: Journal, record: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    tracker.metrics({"loss": 1.0}, 1)
    tracker.finish()


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mlruns'.*refuses folders.*sqlite:///mlflow\.db"):
        start_run(TrackingConfig(uri="mlruns"), run_dir=tmp_path, name="first", params={})
    with pytest.raises(NotFoundError, match=r"journal\.jsonl is missing"):
        deliver(tmp_path / "nothing")


def test_the_module_imports_no_mlflow() -> None:
    heavy = "{'mlflow', 'torch', 'pandas'}"
    code = f"import sys, recsys.training.tracking.run; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_flipped_bit_of_the_journal_is_named_and_the_rest_arrives(
    store: str, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    train("http://unused", run_dir, enabled=False)[0].finish()
    journal = run_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert [record for record, _ in read(run_dir) if record["kind"] == DAMAGED] == []
    rng = random.Random(0)
    for number in range(len(lines)):
        for _ in range(20):
            line = bytearray(lines[number])
            line[rng.randrange(len(line) - 1)] ^= 1 << rng.randrange(8)
            if b"\n" in line[:-1]:  # two lines instead of one
                continue
            journal.write_bytes(b"".join([*lines[:number], bytes(line), *lines[number + 1 :]]))
            kinds = [record["kind"] for record, _ in read(run_dir)]
            assert [n for n, kind in enumerate(kinds) if kind == DAMAGED] == [number], bytes(line)
    spoilt = lines[5].replace(b"recall", b"precis")
    assert spoilt != lines[5]
    journal.write_bytes(b"".join([*lines[:5], spoilt, *lines[6:]]))
    delivered = deliver(run_dir, store)
    assert delivered.left == 0
    assert delivered.problems == ("record 6 of the journal: changed after it was written",)
    journal.write_bytes(b"".join([lines[0].replace(b"first", b"worst"), *lines[1:]]))
    with pytest.raises(IntegrityError, match="its first line was changed"):
        deliver(run_dir, store)


def test_a_damaged_file_of_positions_is_named_and_stops_no_training(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = tmp_path / "run"
    train(store, run_dir)[0].finish()
    positions = run_dir / "tracking.json"
    positions.write_bytes(positions.read_bytes().replace(b'"sent": ', b'"sent": 1'))
    with pytest.raises(IntegrityError, match=r"tracking\.json: its content has sha256.*remove it"):
        deliver(run_dir, store)
    train(store, run_dir)[0].finish()
    assert "nothing is delivered to MLflow" in caplog.text
    positions.unlink()  # as the message says
    assert deliver(run_dir, store).left == 0
    check_arrived_once(store)
