"""Kills, starves and feeds garbage to the engine, and prints what came of it: `make torture`.

    python tests/torture/torture.py --minutes 20 [--only NAME ...] [--write docs/reliability.md]

Minutes are of the processor. A row that could try more than its share allows tries what it can,
spread evenly. Where a try did not pass, the exit code is 1.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import crashes
import damage
import disks
import hostile
import malformed
import reused
from _faulty import Faulty
from _flows import Stage
from _rows import SHOWN, Counted, Share, evenly

QUICK_MINUTES, ALL_MINUTES = 4.0, 600.0
BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"


def hostile_files(stage: Stage, share: Share) -> Counted:
    """Meet files that are made to hurt."""
    every = list(hostile.cases())
    found = Counted(possible=len(every))
    for place in share.while_left(evenly(len(every))):
        wrong, ended = hostile.met(stage, every[place])
        share.used += ended.seconds
        found.add(every[place].name, wrong)
    return found


Row = Callable[[Stage, Share], Counted]
ROWS: dict[str, tuple[float, Row]] = {
    "commands killed at each change of a file": (8, crashes.kills),
    "trainings and scoring of other families, killed": (4, crashes.kills_of_families),
    "SIGTERM and SIGINT at each change of a file": (6, crashes.signals),
    "disk full, read-only, failing; too many files": (6, crashes.refusals),
    "small file systems: full, read-only": (1, disks.full_disks),
    "flips and cuts: bundle, export, checkpoint, journal, cache": (3, damage.flips),
    "files made to hurt: 2 s and 200 MB at most": (2, hostile_files),
    "malformed configurations": (1, malformed.configurations),
    "tables with changed bytes": (1, malformed.tables),
    "malformed requests": (1, malformed.requests),
    **{
        f"tests: {name}": (0, lambda stage, share, name=name: reused.tests(name, share))
        for name in reused.TESTS
    },
}
"""Name -> its weight among those that take as much time as they are given, and what is done."""


def counted(minutes: float, only: Iterable[str]) -> dict[str, Counted]:
    """Do the rows whose names contain one of `only`; all where it is empty."""
    wanted = {n: row for n, row in ROWS.items() if not only or any(one in n for one in only)}
    weights = sum(weight for weight, _ in wanted.values()) or 1.0
    found: dict[str, Counted] = {}
    with tempfile.TemporaryDirectory(prefix="recsys-torture-") as scratch:
        folder = Path(scratch).resolve()
        with Faulty(folder) as faulty:
            stage = Stage(faulty, folder).with_models()
            for name, (weight, row) in wanted.items():
                share, began = Share(60 * minutes * weight / weights), time.monotonic()
                stage.restore()
                found[name] = one = row(stage, share)
                seconds = f"{share.used:.0f} s of the processor, {time.monotonic() - began:.0f} s"
                print(f"{name}: {one.passed} of {one.tried} {one.note()} ({seconds})", flush=True)
                for failure in one.failures[:SHOWN]:
                    print(f"  {failure}", flush=True)
    return found


def table(found: dict[str, Counted]) -> list[str]:
    """Return the lines of the table, as Markdown."""
    lines = ["| What is done | tried | passed | not tried, and why |", "|---|--:|--:|---|"]
    for name, one in found.items():
        lines.append(f"| {name} | {one.tried:,} | {one.passed:,} | {one.note()} |")
    return lines


def write(path: Path, lines: list[str], minutes: float) -> None:
    """Put the table between the two marks of a page."""
    text = path.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    head = f"{date.today()}, {machine}, {minutes:g} minutes of one processor:"
    path.write_text("\n".join([f"{before}{BEGIN}", head, "", *lines, f"{END}{after}"]))


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of the processor")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MINUTES:g} minutes")
    parser.add_argument("--all", action="store_true", help="everything that can be enumerated")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of rows")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    given = parser.parse_args()
    why = Faulty.missing()
    if why:
        print(f"not here: {why}")
        return 0
    minutes = QUICK_MINUTES if given.quick else ALL_MINUTES if given.all else given.minutes
    found = counted(minutes, given.only)
    lines = table(found)
    print("\n" + "\n".join(lines))
    if given.write is not None:
        write(given.write, lines, minutes)
    return int(any(one.passed < one.tried for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
