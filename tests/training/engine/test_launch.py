"""Ranks from the command line: killed, stopped, resumed on another number, and what is said."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.core.errors import ConfigError
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.ranks import World, join, ranks_here
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

CONFIG = """
data: {interactions: log.parquet, stream: true}
schema:
  interactions: {label: {column: click}}
  features:
  - {name: id, table: interactions, kind: categorical, multiplicity: 2}
  - {name: tags, table: interactions, kind: multi_categorical}
model: {kind: dcn, hidden: [4]}
embedding: {num_rows: 101, dim: 4}
training: {epochs: 1, batch_size: 5, checkpoint_every: 30, average_epochs: 0.5, device: cpu}
tracking: {enabled: false}
evaluation: {bootstrap_samples: 20, rankers: [logistic]}
"""
FAILS = """
import os
if os.environ.get("RANK") == "1":
    from recsys.features.clicks.loader import ClickLoader
    from recsys.core.errors import DataError

    def fail(*_):
        raise DataError("this rank cannot read row 7")

    ClickLoader._batch = fail
"""
ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 400


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A streamed click log of 2,500 rows: 400 steps an epoch."""
    folder = tmp_path_factory.mktemp("launch")
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 90, 2_500)
    columns = {
        "click": (rng.random(2_500) < 0.2 + 0.5 * (ids % 2)).astype(int),
        "id": ids,
        "tags": [rng.integers(0, 20, n).tolist() for n in rng.integers(0, 3, 2_500)],
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    path = folder / "recsys.yaml"
    path.write_text(CONFIG + f"output: {folder / 'runs'}\n")
    return path


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command in a group of its own; what is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE)


def until(ready: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the process ids of a launcher's ranks, in their order."""
    path = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return sorted(int(pid) for pid in path.read_text().split())


def runs_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def of_several_machines() -> dict[str, str]:
    """Return the settings of a cluster, whose ranks use another interface than loopback."""
    names = [name for _, name in socket.if_nameindex() if name.startswith(("e", "w"))]
    return dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), names[0]) if names else {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_run_survives_whatever_is_killed_and_ends_on_two_machines(
    config: Path, start: Start, free_port: Callable[[], int], listening: Callable[..., list[str]]
) -> None:
    """One run: a rank of two killed, all of three stopped, and the rest on two nodes."""
    recsys = ("-m", "recsys.app.cli", "train")
    launcher = start(*recsys, config, "--workers", 2, **of_several_machines())
    runs = config.parent / "runs"
    until(lambda: list(runs.glob("dcn-*/checkpoints/step-*")), "a checkpoint")
    (run_dir,) = runs.glob("dcn-*")
    ranks = ranks_of(launcher)
    # The launcher's store, and of each rank a socket of gloo for either of its two groups.
    assert listening(launcher.pid, *ranks) == ["127.0.0.1"] * 5
    os.kill(ranks[1], signal.SIGKILL)
    output, _ = launcher.communicate(timeout=DEADLINE)
    assert launcher.returncode == 137, output
    assert "which one process has: without --workers training takes less CPU time" in output
    checkpoints = Checkpoints.of_run(run_dir)
    stands = checkpoints.steps()[-1]
    again = f"recsys train --resume {run_dir} --workers 2"
    assert output.splitlines()[-2:] == [
        "rank 1 was ended by signal 9 (SIGKILL)",
        f"step {stands} has a checkpoint; continue with: {again} (or another number)",
    ]
    assert "Traceback" not in output

    launcher = start(*recsys, "--resume", run_dir, "--workers", 3)
    until(lambda: checkpoints.steps()[-1] > stands, "a checkpoint of three ranks")
    launcher.terminate()
    output, _ = launcher.communicate(timeout=DEADLINE)
    assert launcher.returncode == 143, output
    stands = checkpoints.steps()[-1]
    assert stands % 30 > 0  # it was written because of the signal
    assert f"step {stands} has a checkpoint; continue with: recsys train --resume" in output

    port = free_port()
    node: tuple[object, ...]
    node = ("-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-id", "job")
    node += ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}")
    nodes = [start(*node, *recsys, "--resume", run_dir) for _ in range(2)]
    outputs = [one.communicate(timeout=DEADLINE)[0] for one in nodes]
    assert [one.returncode for one in nodes] == [0, 0], outputs
    (written,) = run_dir.glob("bundle/*/metrics.json")
    metrics = json.loads(written.read_text())["test"]
    assert metrics["log_loss"] < metrics["base_rate_log_loss"]
    assert sum("bundle: " in output for output in outputs) == 1  # the first rank alone reports


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's own signal")
def test_a_rank_ends_when_its_launcher_is_killed(
    start: Start, free_port: Callable[[], int], listening: Callable[..., list[str]]
) -> None:
    """The rank waits for others that never come, at a store that it opened by itself."""
    environment = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
    environment |= of_several_machines()
    program = (
        "from recsys.training.engine.ranks import join; print('here', flush=True); join('cpu')"
    )
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"
    launcher = start("-c", command, **environment, MASTER_PORT=str(free_port()))
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "here\n"
    (rank,) = ranks_of(launcher)
    until(lambda: listening(rank), "the store")
    assert set(listening(rank)) == {"127.0.0.1"}
    until(lambda: len(listening(rank)) == 2, "gloo")
    assert set(listening(rank)) == {"127.0.0.1"}
    launcher.kill()
    until(lambda: not runs_still(rank), "the end of the orphan")


def test_the_rank_that_failed_is_named_and_not_those_it_took_along(
    config: Path, start: Start, tmp_path: Path
) -> None:
    """The second rank's loader is made to fail; the first rank loses it and says nothing."""
    (tmp_path / "sitecustomize.py").write_text(FAILS)
    launcher = start(
        "-m", "recsys.app.cli", "train", config, "--workers", 2, PYTHONPATH=f"{tmp_path}:{ROOT}"
    )
    output, _ = launcher.communicate(timeout=DEADLINE)
    assert launcher.returncode == 3, output
    *_, rank, words, remedy = output.splitlines()
    assert rank == "rank 1 failed with exit code 3; its last lines:"
    assert words == "Error: this rank cannot read row 7"
    assert "no checkpoint was written yet; start again with: recsys train --resume" in remedy
    assert "lost another rank" not in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("embedding.num_rows=1", "the embedding table has 1 rows, too few for 2 processes"),
    ],
)
def test_what_does_not_shard_is_refused_before_a_run_is_made(
    config: Path, tmp_path: Path, change: str, message: str
) -> None:
    options = ["--workers", "2", "--set", change, "--set", f"output={tmp_path}"]
    result = CliRunner().invoke(main, ["train", str(config), *options])
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_the_machine_knows_how_many_ranks_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # as torchrun sets it
    assert ranks_here(World(rank=3, size=8)) == 2
    assert ranks_here(World()) == 1
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert ranks_here(World(rank=3, size=8)) == 8


def test_ranks_without_the_variables_of_torchrun_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but LOCAL_RANK, MASTER_ADDR, MASTER_P"):
        join()


def test_a_rank_that_does_not_see_the_runs_folder_says_so(config: Path) -> None:
    class Far(World):
        def tell(self, text: str) -> str:
            return "runs/made-by-another-machine"

    with pytest.raises(ConfigError, match=r"rank 0 does not see runs/made-by-.*'output' has to be"):
        train(load_config(config), world=Far())


def test_workers_under_torchrun_are_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(main, ["train", str(config), "--workers", "2"])
    assert result.exit_code == 2
    assert "--workers starts ranks of its own: leave it out under torchrun" in result.output
