"""Rows that are tests of the suite: run here once more, and counted."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from _rows import Counted, Share

ROOT = Path(__file__).resolve().parents[2]
_COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")

TESTS: dict[str, tuple[str, ...]] = {
    "training resumed bit-identical": (
        "tests/training/engine/test_loop.py",
        "tests/training/engine/test_averaging.py",
        "tests/training/families/two_tower/test_task.py",
        "tests/training/families/session/test_task.py",
    ),
    "two processes: kills and signals": (
        "tests/training/engine/test_launch.py",
        "tests/training/engine/test_ranks.py",
    ),
    "malformed tables": (
        "tests/recsys/app/test_malformed_files.py",
        "tests/recsys/app/test_malformed_tables.py",
        "tests/features/tables/test_bad_input.py",
    ),
    "MLflow away, slow, refusing": ("tests/training/tracking/test_tracking.py",),
    "worlds of known truth, planted leaks": (
        "tests/features/world/test_world.py",
        "tests/features/propose/test_leaks.py",
        "tests/features/encoding/test_label_features.py",
        "tests/features/encoding/test_history_features.py",
        "tests/features/dataset/test_split.py",
    ),
}


def tests(name: str, share: Share) -> Counted:
    """Run the tests of a row, all of them."""
    before = _children()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[name]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    share.used += _children() - before
    found = Counted()
    counts = {word: int(count) for count, word in _COUNT.findall(done.stdout.splitlines()[-1])}
    found.passed = counts.get("passed", 0)
    found.tried = found.passed + counts.get("failed", 0) + counts.get("error", 0)
    found.failures = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.M)
    if counts.get("skipped"):
        reasons = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.M)
        found.skipped = f"{counts['skipped']} skipped: {'; '.join(sorted(set(reasons)))[:200]}"
    return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
