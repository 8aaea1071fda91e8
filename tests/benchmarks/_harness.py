"""What every benchmark shares: options, a readable table, the last line of JSON, saved results."""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


class Benchmark:
    """One run: `quick` asks for a minute's version, `overrides` are configuration keys."""

    def __init__(self, name: str, description: str) -> None:
        parser = argparse.ArgumentParser(
            name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--quick", action="store_true", help="a minute's version")
        parser.add_argument("--save", action="store_true", help="write results/<name>.json")
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        options = parser.parse_args()
        self.name, self.save = name, options.save
        self.quick: bool = options.quick
        self.overrides: tuple[str, ...] = tuple(options.set)

    def row(self, label: str, value: str) -> None:
        """Print one line of the table."""
        print(f"{label:<40} {value}", flush=True)

    def finish(self, figures: dict[str, Any]) -> None:
        """Print the figures as the last line, and keep them where asked."""
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
        print(json.dumps({"benchmark": self.name, **figures}))


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
