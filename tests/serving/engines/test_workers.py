"""Parts shared by processes: the same bytes, each once; lost, failing and interrupted workers."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recsys
from recsys.core.errors import DataError, WorkerError
from recsys.core.events import Event, PartDone, ignore
from recsys.serving.engines.parts import write_parts
from recsys.serving.engines.workers import Shared, Team, cores

TINY = """
import os, signal, sys, time
from contextlib import contextmanager
from pathlib import Path
import pyarrow as pa
from recsys.serving.engines.worker import serve

@contextmanager
def opened(spec):
    folder = Path(spec["folder"])
    (folder / f"{os.getpid()}.pid").touch()
    if spec.get("broken"):
        raise RuntimeError("no such model")
    def make(facts, table):
        print("said by a library")
        if spec.get("fails") and not (folder / "failed").exists():
            (folder / "failed").write_text(facts["part"])
            raise ValueError("cannot")
        if spec.get("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if spec.get("waits"):
            time.sleep(600)
        return pa.table({"who": [os.getpid()] * len(table), "n": table["n"]})
    yield make

if __name__ == "__main__":
    serve(opened)
"""
NAMES = [f"part-{n}.parquet" for n in range(6)]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a job of six parts whose workers need a moment to start; its own process waits for them.

    The job makes one part, and waits with the next until a worker has written one or is gone.
    """
    (tmp_path / "tiny_worker.py").write_text(TINY)
    (tmp_path / "pids").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def run(
        workers: int | None = 2,
        names: list[str] = NAMES,
        own: Callable[[int], pa.Table] | None = None,
        listener: Callable[[Event], None] = ignore,
        alone: bool = False,
        **spec: Any,
    ) -> int:
        def make(number: int) -> pa.Table:
            while not alone and number and not written_by_others(tmp_path / "out"):
                time.sleep(0.01)
            return pa.table({"who": [os.getpid()] * 3, "n": [number] * 3})

        makers = {name: partial(own or make, number) for number, name in enumerate(names)}
        orders = {
            name: partial(lambda number: ({}, pa.table({"n": [number] * 3})), number)
            for number, name in enumerate(names)
        }
        team = Team(workers, "tiny_worker", {"folder": str(tmp_path / "pids"), **spec})
        return write_parts(tmp_path / "out", {"j": 1}, makers, listener, Shared(team, orders))

    return run


def written_by_others(out: Path) -> bool:
    """Whether a worker has written a part, or all of them are gone."""
    pids = [int(file.stem) for file in (out.parent / "pids").glob("*.pid")]
    writers = {pq.read_table(file).column("who")[0].as_py() for file in out.glob("part-*")}
    return bool(writers - {os.getpid()}) or (bool(pids) and not any(map(lives, pids)))


def lives(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    return False


def test_parts_are_shared_and_each_is_written_once(job: Callable[..., int], tmp_path: Path) -> None:
    events: list[Event] = []
    assert job(listener=events.append) == 0
    assert events == [PartDone(n + 1, 6) for n in range(6)]
    files = sorted((tmp_path / "out").glob("part-*"))
    tables = [pq.read_table(file) for file in files]
    assert [file.name for file in files] == NAMES
    assert [table.column("n").to_pylist() for table in tables] == [[n] * 3 for n in range(6)]
    writers = {table.column("who")[0].as_py() for table in tables}
    assert len(writers) == 2
    assert os.getpid() in writers
    assert not any(map(lives, writers - {os.getpid()}))
    assert job() == 6  # nobody is started for what is there
    assert len(list((tmp_path / "pids").glob("*.pid"))) == 1


@pytest.mark.parametrize(("workers", "parts", "started"), [(3, 2, 1), (8, 1, 0), (None, 2, 1)])
def test_no_more_processes_than_parts_or_cores(
    job: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int | None,
    parts: int,
    started: int,
) -> None:
    monkeypatch.setattr("recsys.serving.engines.workers.cores", lambda: 2)
    job(workers, NAMES[:parts], alone=parts == 1)
    assert len(list((tmp_path / "pids").glob("*.pid"))) == started
    assert cores() >= 1


def test_a_worker_that_is_killed_is_named_with_its_part_and_the_job_continues(
    job: Callable[..., int], tmp_path: Path
) -> None:
    with pytest.raises(WorkerError, match=r"worker 2 of 2 \(process \d+\) was killed") as error:
        job(killed=True)
    assert error.value.exit_code == 75
    assert "SIGKILL: often the system, out of memory" in str(error.value)
    assert "run the same command again" in str(error.value)
    found = re.search(r"while it made (\S+), which is not written; ", str(error.value))
    there = sorted(file.name for file in (tmp_path / "out").glob("part-*"))
    assert found is not None
    assert found[1] in set(NAMES) - set(there)
    assert f"; {6 - len(there)} of the job's parts are missing" in str(error.value)
    assert job(alone=True) == len(there)
    assert sorted(file.name for file in (tmp_path / "out").glob("*part-*")) == NAMES


def test_a_worker_that_cannot_start_is_named(job: Callable[..., int]) -> None:
    expected = r"worker 2 of 2 \(process \d+\) ended with exit code 1; its message is above"
    with pytest.raises(WorkerError, match=expected):
        job(broken=True)


def test_what_a_worker_cannot_make_is_refused_in_the_words_of_the_job(
    job: Callable[..., int], tmp_path: Path
) -> None:
    failed = tmp_path / "pids" / "failed"

    def own(number: int) -> pa.Table:
        while not failed.exists() or not failed.read_text():
            time.sleep(0.01)
        if NAMES[number] == failed.read_text():
            raise DataError("row 7 is wrong")
        return pa.table({"who": [os.getpid()] * 3, "n": [number] * 3})

    with pytest.raises(DataError, match="row 7 is wrong"):
        job(own=own, fails=True)
    assert not any(lives(int(file.stem)) for file in (tmp_path / "pids").glob("*.pid"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_ends_the_job_ends_its_workers(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "tiny_worker.py").write_text(TINY)
    program = f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(tmp_path)!r})
        import pyarrow as pa
        from recsys.serving.engines.parts import write_parts
        from recsys.serving.engines.workers import Shared, Team
        names = [f"part-{{n}}.parquet" for n in range(2)]
        table = pa.table({{"n": [1]}})
        spec = {{"folder": {str(tmp_path)!r}, "waits": True}}
        orders = dict.fromkeys(names, lambda: ({{}}, table))
        shared = Shared(Team(2, "tiny_worker", spec), orders)
        makers = dict.fromkeys(names, lambda: time.sleep(600))
        try:
            write_parts(Path({str(tmp_path)!r}) / "out", {{}}, makers, helping=shared)
        except KeyboardInterrupt:
            sys.exit(130)
    """
    running = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    while not (pids := list(tmp_path.glob("*.pid"))):
        assert running.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    running.send_signal(number)
    assert running.wait(60) == code
    assert not lives(int(pids[0].stem))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["_job.json"]


def test_lists_are_the_same_bytes_by_two_processes(
    trained: Path, world_config: Path, tmp_path: Path
) -> None:
    """The worker opens the model with settings and filters of every form, as the job does."""
    log, users = world_config.parent / "interactions", world_config.parent / "users.parquet"
    ids = recsys.load(trained).items
    given: dict[str, Any] = {"history": str(log), "users": pd.read_parquet(users), "k": 5}
    given |= {"exclude": pd.DataFrame({"item_id": ids[:40]}), "allow": ids[20:100]}
    given |= {"rows_per_part": 40, "settings": {"policies.float_ids": "integer"}}
    blocked = pd.DataFrame({"user_id": ["user-00001"], "item_id": [ids[50]]})
    items = pd.read_parquet(world_config.parent / "items.parquet")
    given |= {"block": blocked, "items": items, "where": "price > 0"}
    one = recsys.score(trained, tmp_path / "one", **given)

    def wait(event: Event) -> None:
        """Let the worker write a part before this process goes on."""
        if event == PartDone(1, 5):
            while len(list((tmp_path / "two").glob("part-*"))) < 2:
                time.sleep(0.01)

    two = recsys.score(trained, tmp_path / "two", workers=2, listener=wait, **given)
    assert two == {**one, "output": str(tmp_path / "two")}
    files = sorted((tmp_path / "one").glob("part-*"))
    assert len(files) == 5
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    jobs = [json.loads((tmp_path / name / "_job.json").read_text()) for name in ("one", "two")]
    assert jobs[0] == jobs[1]
    assert re.fullmatch(r"part-00000-of-00005\.parquet", files[0].name)
