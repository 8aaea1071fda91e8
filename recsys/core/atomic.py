"""Files and folders that are there whole or not at all: write aside, flush, rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on leaving, its content is at `path`, on the disk.

    An error inside leaves `path` as it was and nothing next to it.
    """
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield staging
        sync(staging)
        staging.replace(path)
        sync(path.parent)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


@contextmanager
def staged_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder in `parent` that is removed on an error, and by `publish` renamed."""
    parent.mkdir(parents=True, exist_ok=True)
    staging = parent / f".{name}.{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, target: Path) -> None:
    """Flush every file under `staging` and rename it to `target`, which must not exist.

    Raises:
        OSError: `target` exists and is not empty.
    """
    for folder, _, names in os.walk(staging):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    staging.rename(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
