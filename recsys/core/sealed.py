"""Folders that a list of all their files, with size and sha256, closes: `files.json`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recsys.core.errors import IntegrityError
from recsys.core.hashed_files import HashedFiles, entries_of, well_formed
from recsys.core.self_hashed import read_self_hashed, self_hashed

SEAL = "files.json"


def seal(folder: Path, entries: Iterable[dict[str, Any]] | None = None) -> None:
    """List all files of `folder` in it; nothing may be added afterwards.

    entries: of `entries_of`, where the files were hashed already.
    """
    listed = entries_of(folder) if entries is None else sorted(entries, key=lambda one: one["path"])
    (folder / SEAL).write_bytes(self_hashed({"files": list(listed)}))


def sealed(folder: Path, called: str, again: str) -> HashedFiles:
    """Return the files that the list in `folder` names; they are checked by its `check`.

    Args:
        folder: that `seal` closed.
        called: what messages call it: "checkpoint".
        again: how to get it once more, for messages.

    Raises:
        IntegrityError: there is no list, or it is not what was written.
    """
    path = folder / SEAL
    if not path.is_file() or path.is_symlink():
        raise IntegrityError(f"{folder}: no {SEAL} in this {called}: it is damaged, or an earlier "
                             f"engine wrote it; {again}")  # fmt: skip
    entries: Any = read_self_hashed(path, again).get("files")
    if not well_formed(entries):
        raise IntegrityError(f"{path}: not a list of files; {again}")
    return HashedFiles(folder, entries, SEAL, called)
