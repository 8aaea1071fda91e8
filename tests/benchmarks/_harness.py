"""What every benchmark shares: options, CPU time, a table, one last line of JSON, a saved file.

    def measure(quick: bool) -> Report: ...

    if __name__ == "__main__":
        run("exact_topk", measure)

`--quick` is for a version of a minute, `--save` writes results/<name>.json beside this file.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: of all threads' processor time, and by the clock."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Report:
    """What a benchmark found: the figures of the last line, and the rows of its table."""

    figures: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)


def timed(call: Callable[[], object]) -> Timing:
    """Call once; return what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Timing(time.process_time() - cpu, time.perf_counter() - wall)


def alternated(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[Timing]]:
    """Time every call `repeats` times in turn, after one round to warm up.

    In turn, so that whatever else the machine does meets all of them alike.
    """
    for call in calls.values():
        call()
    timings: dict[str, list[Timing]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            timings[name].append(timed(call))
    return timings


def median(timings: Sequence[Timing]) -> Timing:
    """Return the median of each time."""
    return Timing(
        statistics.median(timing.cpu for timing in timings),
        statistics.median(timing.wall for timing in timings),
    )


def peak_memory_mb() -> float:
    """Return the most memory this process has held so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def run(name: str, measure: Callable[[bool], Report]) -> None:
    """Parse the command line, measure, print, save where asked."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--quick", action="store_true", help="a version of about a minute")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS / name}.json")
    options = parser.parse_args()
    report = measure(options.quick)
    _print_table(name, report.rows)
    if options.save:
        _save(name, report, quick=options.quick)
    print(json.dumps({"benchmark": name, **report.figures}))


def _print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    Console(width=120).print(table)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _save(name: str, report: Report, *, quick: bool) -> None:
    RESULTS.mkdir(exist_ok=True)
    content = {
        "figures": dict(report.figures),
        "rows": [dict(row) for row in report.rows],
        "seeds": list(report.seeds),
        "config": {**report.config, "quick": quick},
        "command": f"make bench NAME={name} ARGS='{' '.join(sys.argv[1:])}'",
        "commit": _commit(),
        "processor": _processor(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _commit() -> str:
    """Return the commit the working tree stands on, marked where the tree differs from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return f"{names[0]} x {len(names)}" if names else platform.processor()
