"""What every benchmark shares: options, a readable table, the last line of JSON, saved results."""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from _made_up import write_made_up

RESULTS = Path(__file__).parent / "results"
SMALL_MODEL = ("model.dim=16", "embedding.dim=8", "embedding.num_rows=1024")
SMALL_TRAINING = ("training.batch_size=128", "training.epochs=1", "evaluation.bootstrap_samples=10")
T = TypeVar("T")


class Benchmark:
    """One run of a benchmark.

    quick: a minute's version, or less. smoke: a few rows and steps, in seconds, to see that it
    runs: on made-up data sets, in this process, without other libraries; its figures mean
    nothing. overrides: keys of a configuration.
    """

    def __init__(self, name: str, description: str) -> None:
        parser = argparse.ArgumentParser(
            name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        size = parser.add_mutually_exclusive_group()
        size.add_argument("--quick", action="store_true", help="a minute's version")
        size.add_argument("--smoke", action="store_true", help="a few made-up rows: does it run?")
        parser.add_argument("--save", action="store_true", help="write results/<name>.json")
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        options = parser.parse_args()
        if options.smoke and options.save:
            parser.error("the figures of --smoke mean nothing: --save keeps none of them")
        self.name, self.save = name, options.save
        self.smoke: bool = options.smoke
        self.quick: bool = options.quick or options.smoke
        self.overrides: tuple[str, ...] = tuple(options.set)
        self._made_up = tempfile.TemporaryDirectory(prefix="made-up-") if self.smoke else None
        if self._made_up is not None:
            write_made_up(Path(self._made_up.name))
            os.environ["RECSYS_DATA"] = self._made_up.name

    def sized(self, full: T, quick: T, smoke: T) -> T:
        """Return which of them this run's size asks for."""
        if self.smoke:
            return smoke
        return quick if self.quick else full

    def workers(self, count: int, prepare: Callable[[], object] | None = None) -> Executor:
        """Return `count` fresh processes, each of which calls `prepare` first.

        A forked process would have the memory of this one, and the locks of its threads. Of
        `--smoke` all is done in this process at once.
        """
        if self.smoke:
            return _Here()
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(count, context, prepare)

    def row(self, label: str, value: str) -> None:
        """Print one line of the table."""
        print(f"{label:<40} {value}", flush=True)

    def finish(self, figures: dict[str, Any]) -> None:
        """Print the figures as the last line, and keep them where asked."""
        self.keep(figures)
        if self._made_up is not None:
            self._made_up.cleanup()
        print(json.dumps({"benchmark": self.name, **figures}))

    def kept(self) -> dict[str, Any]:
        """Return the figures that are saved, none where there are none."""
        return kept_of(self.name)

    def keep(self, figures: dict[str, Any]) -> None:
        """Keep the figures so far where asked, so that a long run that is ended leaves them."""
        if self.save:
            RESULTS.mkdir(exist_ok=True)
            record = {
                "figures": figures,
                "quick": self.quick,
                "command": _command(Path(sys.argv[0]).stem, sys.argv[1:]),
                "commit": _commit(),
                "processor": _processor(),
                "torch": torch.__version__,
                "date": datetime.now(UTC).date().isoformat(),
            }
            path = RESULTS / f"{self.name}.json"
            path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


class _Here(Executor):
    """Does what is submitted at once, in this process."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: of all threads' processor time, and by the clock."""

    cpu: float
    wall: float


def timed(call: Callable[[], object]) -> Timing:
    """Call once; return what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Timing(time.process_time() - cpu, time.perf_counter() - wall)


def alternated(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Time every call `repeats` times in turn, after one round to warm up; return the medians.

    In turn, so that whatever else the machine does meets all of them alike.
    """
    found: dict[str, list[Timing]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            found[name].append(timed(call))
    return {name: median(timings[1:]) for name, timings in found.items()}


def kept_of(name: str) -> dict[str, Any]:
    """Return the saved figures of the benchmark `name`, none where there are none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())["figures"]) if path.is_file() else {}


def median(timings: Sequence[Timing]) -> Timing:
    """Return the median of each time."""
    return Timing(
        statistics.median(timing.cpu for timing in timings),
        statistics.median(timing.wall for timing in timings),
    )


def peak_memory_mib() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _command(name: str, arguments: Sequence[str]) -> str:
    """Return how to run it again; folders of this machine mean nothing on another one."""
    plain = [a.partition("=")[0] + "=..." if "=/" in a else a for a in arguments]
    return " ".join([f"{name}.py", *plain])


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
