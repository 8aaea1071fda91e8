"""Shared fixtures: one torch thread, one seed; a small built-in world as files."""

import atexit
import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import settings

from recsys.features.dataset.dataset import Dataset, prepare
from recsys.features.world.world import RetailWorld
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.machine import seed_generators
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

# Nothing is timed in tests: a loaded machine takes as long as it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what imports left, which is most of what there is."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.freeze)


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> None:
    torch.set_num_threads(1)
    seed_generators(0)
    np.random.seed(0)


Ranks = Callable[..., list[subprocess.Popen[str]]]


Port = Callable[[], int]


@pytest.fixture(scope="session")
def free_port() -> Port:
    """Find a port to listen on that no connection of another process is given meanwhile.

    Systems draw the ports of outgoing connections from 32768 up; a rank starts to listen only
    when its imports are done, which takes seconds.
    """
    drawn = random.SystemRandom()

    def find() -> int:
        while True:
            port = drawn.randrange(20_000, 30_000)
            with socket.socket() as free, suppress(OSError):
                free.bind(("127.0.0.1", port))
                return port

    return find


Listening = Callable[..., list[str]]


@pytest.fixture(scope="session")
def listening() -> Listening:
    """Read the addresses at which processes listen for connections, off Linux's own tables."""

    def of(*pids: int) -> list[str]:
        links = set()
        for link in (link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()):
            with suppress(OSError):  # closed meanwhile
                links.add(os.readlink(link))
        found = []
        for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == "0A" and f"socket:[{rest[5]}]" in links:
                    words = bytes.fromhex(local.split(":")[0])
                    packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                    found.append(socket.inet_ntop(family, packed))
        return found

    return of


@pytest.fixture(scope="session")
def start_ranks(free_port: Port) -> Iterator[Ranks]:
    """Start `size` ranks of a program as torchrun would; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, size: int, *arguments: object) -> list[subprocess.Popen[str]]:
        group = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        group |= {"PYTHONFAULTHANDLER": 1}
        ranks = []
        for rank in range(size):
            own = {**group, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
            ranks.append(
                subprocess.Popen(
                    [sys.executable, program, *map(str, arguments)],
                    env={**os.environ, **{name: str(value) for name, value in own.items()}},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        started.extend(ranks)
        return ranks

    yield start
    for rank in started:
        rank.kill()
        rank.communicate()


@pytest.fixture(scope="session")
def world() -> RetailWorld:
    """A retail world of 200 users, 120 items and 4,000 events."""
    return RetailWorld.create(seed=1, users=200, items=120, events=4_000)


@pytest.fixture(scope="session")
def world_config(world: RetailWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's tables on disk and the configuration beside them."""
    files = world.write(tmp_path_factory.mktemp("world"))
    path = files.folder / "recsys.yaml"
    path.write_text(world.config_text(files))
    return path


@pytest.fixture(scope="session")
def config(world_config: Path) -> ExperimentConfig:
    """A configuration that trains in seconds."""
    quick = ("training.batch_size=256", "training.uniform_negatives=32", "training.epochs=2")
    small = (
        "model.history_length=10",
        "embedding.num_rows=2048",
        "evaluation.bootstrap_samples=50",
    )
    return load_config(world_config, (*quick, *small))


@pytest.fixture(scope="session")
def dataset(config: ExperimentConfig) -> Dataset:
    """The world, read, parted and encoded."""
    return prepare(config.schema_, config.data, config.policies, config.split)


@pytest.fixture(scope="session")
def trained(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a two-tower trained for two epochs on the small world; no tracking."""
    torch.set_num_threads(1)
    output = str(tmp_path_factory.mktemp("runs"))
    tracking = config.tracking.model_copy(update={"enabled": False})
    quick = config.model_copy(update={"output": output, "tracking": tracking})
    result = train(quick)
    assert result is not None
    return result.bundle


@pytest.fixture(scope="session")
def untrained(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a two-tower of the small world that learnt nothing: its rates are next to 0."""
    torch.set_num_threads(1)
    training = config.training.model_copy(update={"learning_rate": 1e-9, "epochs": 1})
    still = {
        "output": str(tmp_path_factory.mktemp("untrained")),
        "tracking": config.tracking.model_copy(update={"enabled": False}),
        "training": training,
        "embedding": config.embedding.model_copy(update={"learning_rate": 1e-9}),
    }
    result = train(config.model_copy(update=still))
    assert result is not None
    return result.bundle


@pytest.fixture(scope="session")
def messy_log() -> pd.DataFrame:
    """1,200 events of 60 users: ids in two spellings, ties, repeats, events taken back, gaps.

    Some rows have no user, a type that nobody reads, or a price below what is read.
    """
    rng, size = np.random.default_rng(5), 1_200
    number = rng.integers(0, 60, size)
    at = 1_700_000_000 + rng.integers(0, 40, size) * rng.choice([1, 60, 4_000], size)
    frame = pd.DataFrame(
        {
            "user": np.where(rng.random(size) < 0.5, "U", "u") + pd.Series(number.astype(str)),
            "item": [f"i{one:02}" for one in rng.integers(0, 15, size)],
            "at": pd.to_datetime(at, unit="s").astype("datetime64[us]"),
            "what": rng.choice(["view", "buy", "return", "ping"], size, p=[0.6, 0.25, 0.1, 0.05]),
            "price": rng.integers(0, 20, size).astype(float),
        }
    )
    frame.loc[rng.random(size) < 0.02, "user"] = None
    return pd.concat([frame, frame.sample(60, random_state=1)]).sample(frac=1, random_state=2)


@pytest.fixture(scope="session")
def messy(messy_log: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sessions of the messy log, which lies beside it as log/*.parquet and users."""
    folder = tmp_path_factory.mktemp("messy")
    (folder / "log").mkdir()
    for part in range(3):
        rows = messy_log.iloc[part::3]
        rows.to_parquet(folder / "log" / f"part-{part}.parquet", index=False, row_group_size=90)
    users = pd.DataFrame({"user": [f"u{n}" for n in range(70)], "town": list("abcdefg") * 10})
    users.to_parquet(folder / "users.parquet", index=False)
    roles = {
        "user": "user",
        "item": "item",
        "time": {"column": "at", "unit": "datetime"},
        "where": [{"column": "price", "at_least": 1}],
        "events": {
            "column": "what",
            "weights": {"view": 1, "buy": 2},
            "undo": {"return": "buy"},
            "seen": ["buy"],
        },
    }
    settings = {
        "data": {"interactions": str(folder / "log"), "users": str(folder / "users.parquet")},
        "split": {"kind": "leave_one_out"},
        "policies": {"bad_ids": "drop", "unknown_events": "drop", "duplicate_events": "drop"},
        "schema": {
            "ids": {"users": {"case": "lower"}},
            "interactions": roles,
            "users": {"key": "user"},
            "features": [
                {"name": "item", "table": "items", "kind": "categorical"},
                {"name": "town", "table": "users", "kind": "categorical"},
                {"name": "price", "table": "interactions", "kind": "numeric"},
            ],
        },
        "sessions": {"inactivity_minutes": 30},
        "embedding": {"num_rows": 256, "dim": 8},
        "model": {"kind": "session", "dim": 8, "history_length": 8},
        "training": {"loss": "full_softmax", "batch_size": 64, "epochs": 1, "metric": "mrr_at_5"},
        "evaluation": {"queries": "events", "ks": [5], "baselines": []},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    (folder / "recsys.yaml").write_text(yaml.safe_dump(settings))
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return result.bundle


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's tables: seconds to create, nothing to copy."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the default experiment's artifacts lie in the working folder
        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def mlflow_server(
    mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Port
) -> Iterator[str]:
    """The address of a real tracking server that hands artifacts through; stopped at the end."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    database = shutil.copy(mlflow_template, folder / "mlflow.db")
    command = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1".split()
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it starts processes of its own
        )
    try:
        for _ in range(3000):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
