"""The parts of a batch job, written by several processes of this machine, each part once.

The job's own process is one of them. It reads the requests, so a log is read and held once, and
hands a part to each other process as soon as that one is free. Workers are new processes
(`recsys.serving.engines.worker`) with one thread each, that open the model themselves.

What a worker cannot make, the job makes: an error in the data is raised as it would be without
workers. A worker that is killed ends the job, after the parts that others are at.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

import recsys
from recsys.core.errors import WorkerError
from recsys.serving.engines.messages import Message, receive, send
from recsys.serving.engines.parts import Makers, write_part
from recsys.serving.engines.worker import DONE, FAILED

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PATIENCE_SECONDS = 20
"""How long a worker that is told to end may take before it is killed."""


@dataclass(frozen=True)
class Team:
    """Several processes for one job.

    Attributes:
        workers: how many, that of the job among them; None: one for each core.
        module: what a worker runs (`python -m`); it calls `recsys.serving.engines.worker.serve`.
        spec: what a worker opens its model with, for JSON.
    """

    workers: int | None
    module: str
    spec: Mapping[str, Any]

    def size(self, num_parts: int) -> int:
        """Return how many processes work on `num_parts` parts."""
        return min(cores() if self.workers is None else self.workers, num_parts)


Order = Callable[[], Message]
"""Returns what a worker is sent for a part: facts, and perhaps the requests."""


@dataclass(frozen=True)
class Shared:
    """A team with what it is sent for each part, by name."""

    team: Team
    orders: Mapping[str, Order]

    def write(
        self,
        output: Path,
        claim: Mapping[str, Any],
        makers: Makers,
        written: Callable[[], None],
    ) -> None:
        """Write parts with several processes.

        Args:
            output: folder of the parts, claimed.
            claim: what `_job.json` there says.
            makers: name of a part -> what makes it in this process.
            written: called in this thread after each part.

        Raises:
            WorkerError: a worker was killed, or could not open the model.
        """
        job = _Job(output, claim, makers, self.orders, written, deque(makers))
        with ExitStack() as stack:
            stack.enter_context(_terminated())
            stack.enter_context(_one_thread())
            for number in range(2, self.team.size(len(makers)) + 1):
                job.workers.append(stack.enter_context(_started(number, self.team)))
            stack.enter_context(job.fed(self.team.spec))
            job.run()
        if job.lost is not None:
            raise job.lost_error()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Lost(NamedTuple):
    """A worker that is gone: its number, process and exit code, and the part it was at."""

    number: int
    process: int
    code: int
    part: str | None


class _Worker(NamedTuple):
    number: int
    process: "subprocess.Popen[bytes]"


@dataclass
class _Job:
    """Who is at which part. `events`: a part's name and how it went, or None: a worker is idle."""

    output: Path
    claim: Mapping[str, Any]
    makers: Makers
    orders: Mapping[str, Order]
    written: Callable[[], None]
    waiting: "deque[str]"
    workers: list[_Worker] = field(default_factory=list)
    lost: _Lost | None = None
    _events: "queue.SimpleQueue[tuple[str, str] | None]" = field(default_factory=queue.SimpleQueue)
    _stopped: bool = False
    _num_written: int = 0

    @contextmanager
    def fed(self, spec: Mapping[str, Any]) -> Iterator[None]:
        """Give parts to the workers meanwhile, a thread each; end them afterwards."""
        threads = [
            threading.Thread(target=self._feed, args=(one, spec), daemon=True)
            for one in self.workers
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        except BaseException:
            self._stopped = True
            for one in self.workers:
                one.process.terminate()
            raise
        finally:
            for one in self.workers:
                _wait(one.process)
            for thread in threads:
                thread.join()

    def run(self) -> None:
        """Write parts in this process, too, until all are written or a worker is lost."""
        busy = len(self.workers)
        while not self._stopped:
            name = self._next()
            if name is None:
                break
            self._make(name)
            while not self._events.empty():
                busy -= self._note(self._events.get())
        while busy:
            busy -= self._note(self._events.get())

    def lost_error(self) -> WorkerError:
        """Return what to say of the worker that was lost."""
        assert self.lost is not None
        number, process, code, part = self.lost
        count = len(self.workers) + 1
        how = f"ended with exit code {code}; its message is above"
        if code < 0:
            how = f"was killed by signal {-code}"
        if -code == signal.SIGKILL:
            how += " (SIGKILL: often the system, out of memory)"
        at = f"while it made {part}, which is not written" if part else "before it made a part"
        left = len(self.makers) - self._num_written
        return WorkerError(
            f"{self.output}: worker {number} of {count} (process {process}) {how}, {at}; {left} of "
            f"the job's parts are missing: run the same command again, which continues, with fewer "
            "--workers where memory was short"
        )

    def _next(self) -> str | None:
        with suppress(IndexError):  # a deque is emptied by several threads
            return None if self._stopped else self.waiting.popleft()
        return None

    def _make(self, name: str) -> None:
        write_part(self.output / name, self.claim, self.makers[name])
        self._count()

    def _count(self) -> None:
        self._num_written += 1
        self.written()

    def _note(self, event: tuple[str, str] | None) -> int:
        """Do what an event asks for; return how many workers became idle."""
        if event is None:
            return 1
        how, name = event
        if how == DONE:
            self._count()
        elif not self._stopped:
            self._make(name)
        return 0

    def _feed(self, worker: _Worker, spec: Mapping[str, Any]) -> None:
        """Send parts to a worker, one at a time, and tell how each went."""
        process, name = worker.process, None
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None
        try:
            first = {"output": str(self.output.absolute()), "claim": self.claim, "spec": spec}
            send(asked, first)
            while (name := self._next()) is not None:
                order = self._order(name)
                if order is None:
                    self._events.put((FAILED, name))
                    continue
                facts, table = order
                send(asked, {"part": name, **facts}, table)
                answer = receive(answers)
                if answer is None:
                    raise BrokenPipeError
                self._events.put((DONE if DONE in answer[0] else FAILED, name))
            asked.close()
        except OSError:
            if not self._stopped:  # this job ends its workers itself
                self._stopped = True
                code = _wait(process)
                self.lost = _Lost(worker.number, process.pid, code, name)
        finally:
            self._events.put(None)

    def _order(self, name: str) -> Message | None:
        """Return what to send for a part; None: its requests cannot be read, the job says why."""
        try:
            return self.orders[name]()
        except Exception:
            return None


@contextmanager
def _started(number: int, team: Team) -> Iterator[_Worker]:
    """Start a worker; it is gone afterwards."""
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
    # As this process finds the engine, so does the worker.
    root = str(Path(recsys.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, *(one for one in sys.path if one)])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", team.module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # a key that interrupts the job is the job's to answer
    )
    try:
        yield _Worker(number, process)
    finally:
        if process.poll() is None:
            process.terminate()
        _wait(process)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit code of a worker that is about to end."""
    try:
        return process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let this process compute with one thread, as each worker does."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM, which would end this process at once, end its workers first."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
