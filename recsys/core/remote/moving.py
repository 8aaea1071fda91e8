"""Files between this machine and a store: sent and fetched whole, several at a time.

A store has no rename: an object is there whole or not at all, a folder is not. What says that a
folder is whole (its manifest) is therefore sent last, and whoever reads begins with it.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recsys.core.errors import StoreError
from recsys.core.remote.path import Entry, RemotePath

_AT_ONCE = 8


def send_file(source: Path, target: RemotePath) -> None:
    """Write a file of this machine as one object.

    Raises:
        UserError: the store refused it; there is no half of it.
    """
    from pyarrow.fs import LocalFileSystem, copy_files

    def send(system: Any, path: str) -> None:
        copy_files(
            str(source), path, source_filesystem=LocalFileSystem(), destination_filesystem=system
        )

    target.ask(send)
    size, sent = source.stat().st_size, target.entry()
    if sent is None or sent.size != size:
        target.unlink(missing_ok=True)
        raise StoreError(f"{target}: the store did not take all {size:,} bytes; try again")


def send_folder(source: Path, target: RemotePath, last: str) -> None:
    """Write all files of a folder, the one that is named `last` after all others.

    Raises:
        UserError: the store refused one; then `last` is not there.
    """
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    for closing in (False, True):
        names = [name for name in files if (name.as_posix() == last) is closing]
        each(names, lambda name: send_file(source / name, target / name))


def fetch_file(source: RemotePath, target: Path) -> None:
    """Copy an object to a file of this machine; folders are made where missing."""
    from pyarrow.fs import LocalFileSystem, copy_files

    target.parent.mkdir(parents=True, exist_ok=True)

    def fetch(system: Any, path: str) -> None:
        copy_files(
            path, str(target), source_filesystem=system, destination_filesystem=LocalFileSystem()
        )

    source.ask(fetch)


def fetch_folder(source: RemotePath, target: Path) -> list[Entry]:
    """Copy all files below an address to a folder of this machine; return what they were."""
    found = [one for one in source.entries(below=True) if one.is_file]
    each(found, lambda one: fetch_file(one.path, target / one.path.relative_to(source)))
    return found


def each(items: Iterable[Any], do: Callable[[Any], None]) -> None:
    """Do something with each, several at a time; the first error is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(do, items):
            pass
