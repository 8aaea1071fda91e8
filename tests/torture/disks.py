"""Real disks that are full or read-only: file systems in memory, where root may mount them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _flows import LIGHT, Stage, sets
from _rows import Counted, Share

SIZES_KB = (0, 16, 64, 256, 1024)
"""0: read-only."""
_LOG = ("--interactions", "interactions", "--users", "users.parquet")
COMMANDS: dict[str, list[str]] = {
    "score": ["score", "model", *_LOG, "--output", "disk/out", "--rows-per-part", "20"],
    "export": ["export", "model", "--to", "faiss", "--out", "disk/index"],
    "train": ["train", "recsys.yaml", *sets(*LIGHT, "output=disk/runs", "tracking.enabled=false")],
    "evaluate": ["evaluate", "model", "--out", "disk/page.html"],
    "register": ["register", "model", "--name", "shop", "--tracking-uri", "sqlite:///disk/m.db"],
}


@contextmanager
def disk(path: Path, size_kb: int) -> Iterator[None]:
    """Mount a file system of so many KB (0: read-only) at `path`.

    Raises:
        CalledProcessError: this user may not.
    """
    path.mkdir(exist_ok=True)
    how = "ro" if size_kb == 0 else f"size={size_kb}k"
    mount = ["mount", "-t", "tmpfs", "-o", how, "torture", str(path)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def full_disks(stage: Stage, share: Share) -> Counted:
    """Write to disks that are too small, make them large, and repeat."""
    found = Counted()
    try:
        with disk(stage.home / "disk", 64):
            pass
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        found.skipped = f"no file system could be mounted here ({error})"
        return found
    for size, name in share.while_left((size, name) for size in SIZES_KB for name in COMMANDS):
        stage.reset()
        with disk(stage.home / "disk", size):
            ended = stage.faulty.run(stage.home, COMMANDS[name])
            share.used += ended.seconds
            wrong = _wrong(stage, ended.code, ended.out + ended.err)
            if not wrong and size:
                grow = ["mount", "-o", "remount,size=100m", str(stage.home / "disk")]
                subprocess.run(grow, check=True)
                again = stage.faulty.run(stage.home, COMMANDS[name])
                share.used += again.seconds
                if again.code and "exists" not in again.err:
                    wrong = f"repeated: {again.err[-300:]}"
        found.add(f"{name}, {f'{size} KB' if size else 'read-only'}", wrong)
    shutil.rmtree(stage.home / "disk", ignore_errors=True)
    return found


def _wrong(stage: Stage, code: int, said: str) -> str:
    if "Traceback" in said:
        return said[-800:]
    if code and "Error: " not in said:
        return f"exit code {code}: {said[-300:]}"
    left = stage.staged()
    return f"left: {left}" if left else ""
