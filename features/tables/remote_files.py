"""The files behind the address of a table in a store: the rules of `paths.py`, with few requests.

Everything below a folder is listed at once, so a table of a thousand partitions takes as many
requests as one of a single file.
"""

from glob import has_magic
from pathlib import Path

from recsys.core.remote.path import Entry, RemotePath, matches
from recsys.features.tables.lakes import Lake, format_of_lake, lake_at, lake_file
from recsys.features.tables.paths import absent, is_hidden, no_files

_LAKES = {"_delta_log": "Delta", ".hoodie": "Hudi"}


def find_remote(
    address: RemotePath, given: str, table: str
) -> tuple[Path, list[Path], Lake | None]:
    """Return the folder of a table, its files in order, and what a lake says of them.

    Raises:
        NotFoundError: nothing is there, or there is no such bucket.
        DataError: it is a lake that is not read, or a file of a lake.
        UserError: the store does not allow it, or does not answer.
    """
    found = address.entry()
    if found is not None and found.is_file:
        _refuse_in_lake_above(address.parent, address)
        return address.parent, [address], None
    root = address if found is not None else _root_of(address)
    if found is None and not has_magic("/".join(address.within[1:])):
        address.check_bucket()
        raise absent(address, given, table)
    listed = root.entries(below=True)
    if found is not None:
        lake = lake_at(root) if _lakes_in(listed).get(root) else None
        if lake is not None:
            return root, list(lake.files), lake
        files = _visible(listed, root)
    else:
        pattern = address.parts[len(root.parts) :]
        files = _matched(listed, root, pattern)
    if not files:
        address.check_bucket()
        raise no_files(given, table, is_folder=found is not None)
    _refuse_in_lake(files, _lakes_in(listed))
    _refuse_in_lake_above(root, files[0])
    return root, files, None


def _root_of(address: RemotePath) -> RemotePath:
    """Return the longest folder before the first part of a pattern that is none by its name."""
    root = address.parent
    while len(root.within) > 1 and has_magic("/".join(root.within[1:])) and not root.is_dir():
        root = root.parent
    return root


def _visible(listed: list[Entry], root: Path) -> list[Path]:
    return [one.path for one in listed if one.is_file and not is_hidden(one.path.relative_to(root))]


def _matched(listed: list[Entry], root: Path, pattern: tuple[str, ...]) -> list[Path]:
    """Return the files that match, and those in folders that do."""
    start = len(root.parts)

    def is_in(path: Path) -> bool:
        parts = path.parts[start:]
        return any(matches(parts[: end + 1], pattern) for end in range(len(parts)))

    return [path for path in _visible(listed, root) if is_in(path)]


def _lakes_in(listed: list[Entry]) -> dict[Path, str]:
    """Return the folders of lakes among what was listed -> format."""
    found: dict[Path, str] = {}
    for one in listed:
        for at, part in enumerate(one.path.parts):
            if part in _LAKES:
                found[RemotePath(*one.path.parts[:at])] = _LAKES[part]
        if one.path.match("metadata/*.metadata.json"):
            found[one.path.parent.parent] = "Iceberg"
    return found


def _refuse_in_lake(files: list[Path], lakes: dict[Path, str]) -> None:
    for file in files if lakes else ():
        for folder in file.parents:
            if folder in lakes:
                raise lake_file(folder, file, lakes[folder])


def _refuse_in_lake_above(root: Path, file: Path) -> None:
    """Refuse the files of a part of a lake: the folder is one, or those above it that may be."""
    for folder in (root, *root.parents):
        if len(folder.parts) < 3 or not isinstance(folder, RemotePath):
            return
        name = format_of_lake(folder)
        if name:
            raise lake_file(folder, file, name)
        if "=" not in folder.name and folder.name != "data" and folder != root:
            return
