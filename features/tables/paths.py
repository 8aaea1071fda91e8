"""The files behind a path: a file itself, those of a folder, those that a pattern matches.

What is there under the very name that was given is meant: `[ ] * ?` are a pattern only where no
such file or folder exists. Links are followed. Nothing that may hold rows is left out unsaid: a
broken link, a folder that cannot be listed and a file that is met twice are refused by name.
"""

import os
from collections.abc import Iterator
from glob import escape as glob_escape
from glob import glob, has_magic
from pathlib import Path
from urllib.parse import unquote

from recsys.core.errors import DataError, NotFoundError
from recsys.core.remote.path import RemotePath, path_at
from recsys.core.strict import nearest

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def find_files(given: str, table: str) -> tuple[Path, list[Path]]:
    """Return the folder that of the path, and its files in order.

    Not by `pyarrow.dataset`: it knows no globs, leaves out folders such as `_day=1` without a word,
    and makes a number of a partition's "007".

    Raises:
        NotFoundError: nothing is there.
        DataError: a link leads nowhere, a folder cannot be listed, a file is met twice or is
            a pipe, or its name is not UTF-8.
    """
    path = literal(given)
    assert not isinstance(path, RemotePath), "see remote_files.py"
    if path.is_file():
        _refuse_odd_name(path)
        return path.parent, [path]
    if path.is_dir():
        root, found = path, [*_walk(path, path, frozenset())]
    elif path.exists():
        raise _special(path)
    elif os.path.islink(path):
        raise _nowhere(path)
    elif has_magic(str(path)):
        root, found = _matched(path)
    else:
        raise absent(path, given, table)
    files = [file for file in found if not is_hidden(file.relative_to(root))]
    if not files:
        raise no_files(given, table, is_folder=path.is_dir())
    for file in files:
        _refuse_odd_name(file)
    _refuse_repeated(files)
    return root, files


def _refuse_odd_name(path: Path) -> None:
    """Refuse a name whose bytes are no UTF-8, which libraries and configurations cannot hold.

    Raises:
        DataError: it is none.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError("the name is not UTF-8", file=path, remedy="rename the file") from None


def literal(given: str | Path) -> Path:
    """Return the path as it is where it exists, else with the home folder in place of `~`.

    That of a store's file is its address.
    """
    path = path_at(given)
    if not str(given).startswith("~") or os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # of a user who is not there
        return path


def _matched(path: Path) -> tuple[Path, list[Path]]:
    """Return the folder that a pattern begins with, and the files that it matches."""
    # Folders that exist under their very names are no part of the pattern: "data [v2]/*.csv".
    root = next(parent for parent in path.parents if parent.is_dir())
    pattern = os.path.join(glob_escape(str(root)), str(path.relative_to(root)))
    found: dict[Path, None] = {}
    above = frozenset([os.path.realpath(root)])
    for name in sorted(glob(pattern, recursive=True)):
        match = Path(name)
        if is_hidden(match.relative_to(root)):
            continue
        if match.is_dir():
            found |= dict.fromkeys(_walk(match, root, above))
        else:
            found |= dict.fromkeys(_data_file(match))
    return root, sorted(found)


def _walk(folder: Path, root: Path, above: frozenset[str]) -> Iterator[Path]:
    """Yield the files below a folder, in order, links followed.

    `above`: the real paths of the folders that led here; a link back to one of them adds nothing.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"the folder cannot be listed ({error.strerror})",
            file=folder,
            remedy="allow reading it, or move it out of the table",
        ) from None
    for entry in entries:
        if is_hidden(entry.relative_to(root)):
            continue
        if entry.is_dir():
            yield from _walk(entry, root, above | {real})
        else:
            yield from _data_file(entry)


def _data_file(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.exists():
        raise _special(path)
    elif os.path.islink(path):
        raise _nowhere(path)


def _special(path: Path) -> DataError:
    """Return the error for a pipe, a socket or a device, which is read once or without end."""
    return DataError(
        "neither a file nor a folder",
        file=path,
        remedy="write the table to a file, and leave nothing else in its folder",
    )


def _nowhere(path: Path) -> DataError:
    return DataError(
        f"a link to {os.readlink(path)}, which is not there",
        file=path,
        remedy="mend the link or remove it",
    )


def no_files(given: str, table: str, *, is_folder: bool) -> NotFoundError:
    """Return the error for a folder or a pattern that leads to no file."""
    what = "folder holds no data file" if is_folder else "glob matches no file"
    return NotFoundError(f"{given}: the {table} table's {what}; correct the path under 'data'")


def absent(path: Path, given: str, table: str) -> NotFoundError:
    """Return the error for a path that does not exist; the nearest name there is named."""
    there = path.parent.is_dir()
    siblings = [entry.name for entry in path.parent.iterdir()] if there else []
    hint = nearest(path.name, siblings) or ("" if there else " and neither does its folder")
    # Tables of `init` have no role yet and are called by their files.
    what = "it" if table == path.name else f"this path of the {table} table"
    return NotFoundError(f"{given}: {what} does not exist{hint}")


def _refuse_repeated(files: list[Path]) -> None:
    """Refuse a file that a link leads to a second time: its rows would count twice."""
    seen: dict[str, Path] = {}
    for file in files:
        first = seen.setdefault(os.path.realpath(file), file)
        if first is not file:
            raise DataError(
                f"the same file as {first}, by a link: its rows would be read twice",
                file=file,
                remedy="remove the link from the table, or use a glob that leaves it out",
            )


def is_hidden(path: Path) -> bool:
    """Spark's `_SUCCESS`, checksums and temporary folders are no data."""
    return any(part.startswith(("_", ".")) and "=" not in part for part in path.parts)


def partitions_of(path: Path, root: Path) -> dict[str, str | None]:
    """Return the values that the names of the folders between `root` and `path` give.

    Raises:
        DataError: two folders give one column.
    """
    pairs = [part.split("=", 1) for part in path.relative_to(root).parts[:-1] if "=" in part]
    names = [unquote(name) for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(
            "two folders above the file give this column",
            file=path,
            column=twice[0],
            remedy="rename one of the folders",
        )
    return {unquote(name): None if raw == _NULL_PARTITION else unquote(raw) for name, raw in pairs}
