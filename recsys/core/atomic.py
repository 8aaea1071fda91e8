"""Files and folders that are there whole or not at all: write aside, flush, rename.

At the address of a store nothing can be renamed: what is written aside on this machine is sent, and
of a folder the file that says that it is whole comes last.

What is written aside is called `.<name>.<machine>-<process>`, in other threads than the main one
with the thread's number. A kill leaves it; the next who writes under that name removes what
processes of this machine left that are gone.
"""

import os
import platform
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.remote.moving import send_file, send_folder
from recsys.core.remote.path import RemotePath
from recsys.core.system_errors import with_path

_MACHINE = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "machine"
"""Machines may share a folder; a process is only known on its own."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on leaving, its content is at `path`, on the disk.

    An error inside leaves `path` as it was and nothing next to it; one of the system names `path`.
    A link stays, the file that it leads to is written; so stay the permissions of a file that is
    there. To a device or a pipe the content is copied.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
            copy = Path(scratch) / path.name
            yield copy
            send_file(copy, path)
        return
    if _is_stream(path):
        with _copied_to(path) as staging:
            yield staging
        return
    named_as, path = path, Path(os.path.realpath(path))
    staging = _aside(path)
    try:
        yield staging
        if path.exists():
            staging.chmod(stat.S_IMODE(path.stat().st_mode))
        sync(staging)
        staging.replace(path)
        sync(path.parent)
    except BaseException as error:
        _remove(staging)
        named = with_path(error, named_as)
        if named is error:
            raise
        raise named from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file as `whole_file` does; text is UTF-8."""
    with whole_file(path) as staging:
        staging.write_bytes(content.encode() if isinstance(content, str) else content)


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _copied_to(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "content"
        yield staging
        with staging.open("rb") as content, path.open("wb") as stream:
            shutil.copyfileobj(content, stream)


@contextmanager
def staged_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder in `parent` that is removed on an error, and by `publish` renamed.

    Where `parent` is the address of a store, one of this machine that `publish` sends.
    """
    if isinstance(parent, RemotePath):
        with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
            yield Path(scratch)
        return
    parent.mkdir(parents=True, exist_ok=True)
    staging = _aside(parent / name)
    staging.mkdir()
    try:
        yield staging
    except BaseException as error:
        named = with_path(error, parent / name)
        if named is error:
            raise
        raise named from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, target: Path, last: str = "") -> None:
    """Flush every file under `staging` and rename it to `target`, which must not exist.

    Args:
        staging: of `staged_folder`.
        target: the name that the folder gets.
        last: the file that says that it is whole: sent after all others to the address of a store.

    Raises:
        OSError: `target` exists and is not empty.
        UserError: the store refuses it.
    """
    if isinstance(target, RemotePath):
        send_folder(staging, target, last)
        return
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


def remove_whole(path: Path) -> None:
    """Remove a folder, its name first: a kill in between leaves nothing that looks like it."""
    if path.is_dir():
        gone = _aside(path, "gone.")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what processes that are gone left of writing or removing `path`."""
    for left in _left(path):
        _remove(left)


def _left(path: Path) -> Iterator[Path]:
    named = re.compile(
        rf"\.{re.escape(path.name)}\.(?:gone\.)?{re.escape(_MACHINE)}-([0-9]+)(?:\.[0-9]+)?"
    )
    for left in path.parent.glob(".*"):
        found = named.fullmatch(left.name)
        if found and not _lives(int(found[1])):
            yield left


def _aside(path: Path, what: str = "") -> Path:
    """Return the name that this process writes `path` under; nothing has it."""
    sweep(path)
    thread = threading.current_thread()
    of_thread = "" if thread is threading.main_thread() else f".{thread.native_id}"
    aside = path.with_name(f".{path.name}.{what}{_MACHINE}-{os.getpid()}{of_thread}")
    _remove(aside)
    return aside


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
