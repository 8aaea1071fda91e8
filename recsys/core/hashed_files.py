"""Files of a folder that a manifest lists with size and sha256: listed, and checked again.

A manifest's `files` is a list of {"path", "bytes", "sha256"}; paths are relative, with `/`.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.core.errors import IntegrityError, NotFoundError
from recsys.core.small_files import refuse_irregular

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_CHUNK_BYTES = 1 << 20

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class HashedFiles:
    """The files that the manifest of a folder lists.

    path: the folder. entries: the list. manifest: the name of the manifest in the folder. called:
    what messages call such a folder: "bundle". shown: where its files are for messages, of a copy
    the original; None: at `path`.
    """

    path: Path
    entries: Sequence[Entry]
    manifest: str
    called: str
    shown: Path | None = None

    def names(self) -> list[str]:
        """Return the files' names, in the order of the list."""
        return [entry["path"] for entry in self.entries]

    def check(self, part: int = 0, parts: int = 1) -> None:
        """Verify every file's name, size and sha256, and that there is no file more.

        Args:
            part: where `parts` processes share the work, which of the files this one hashes.
            parts: how many they are.

        Raises:
            IntegrityError: a file is missing, is not what was written, or should not be there.
        """
        self._refuse_strangers()
        for entry in self.entries[part::parts]:
            self._check(entry, self._hash_file(entry["path"]))

    def read(self, name: str) -> bytes:
        """Return the bytes of `name`, verified.

        Raises:
            NotFoundError: the manifest does not list the file.
            IntegrityError: the bytes are not those that were written.
        """
        for entry in self.entries:
            if entry["path"] == name:
                data = (self.path / name).read_bytes()
                self._check(entry, (len(data), hashlib.sha256(data).hexdigest()))
                return data
        raise NotFoundError(f"{self.path}: the {self.called} holds no '{name}'")

    def _refuse_strangers(self) -> None:
        """Names must be plain and listed; links lead outside."""
        listed = set(self.names()) | {self.manifest}
        for name in listed:
            if not _NAME.fullmatch(name):
                raise IntegrityError(f"{self._at()}: the manifest lists a bad name, {name!r}")
        for path in _below(self.path):
            name = path.relative_to(self.path).as_posix()
            if path.is_symlink():
                raise IntegrityError(f"{self._at(name)}: a link inside the {self.called}")
            if path.is_file() and name not in listed:
                raise IntegrityError(f"{self._at(name)}: not a file of this {self.called}")

    def _at(self, name: str = "") -> Path:
        return (self.shown or self.path) / name

    def _hash_file(self, name: str) -> tuple[int, str]:
        path = self.path / name
        try:
            refuse_irregular(path, f"get the {self.called} again")
            return hash_of(path)
        except FileNotFoundError:
            raise IntegrityError(f"{self._at(name)}: missing from the {self.called}") from None

    def _check(self, entry: Entry, found: tuple[int, str]) -> None:
        if found != (entry["bytes"], entry["sha256"]):
            raise IntegrityError(
                f"{self._at(entry['path'])}: {found[0]} bytes with sha256 {found[1][:12]}..., "
                f"the manifest says {entry['bytes']} bytes with {str(entry['sha256'])[:12]}...: "
                f"the file was changed after it was written; get the {self.called} again"
            )


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """Return what a manifest says of all files in `folder`, sorted by their paths."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [entry_of(path, folder) for path in paths]


def entry_of(path: Path, folder: Path) -> dict[str, Any]:
    """Return what a manifest in `folder` says of the file at `path`."""
    size, digest = hash_of(path)
    return {"path": path.relative_to(folder).as_posix(), "bytes": size, "sha256": digest}


def well_formed(entries: Any) -> bool:
    """Whether a list of a manifest has what `HashedFiles` reads."""
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and {"path", "bytes", "sha256"} <= set(entry) for entry in entries
    )


def hash_of(path: Path) -> tuple[int, str]:
    """Return the size of a file and its sha256, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _below(folder: Path) -> Iterator[Path]:
    for inside, folders, files in os.walk(folder):
        yield from (Path(inside) / name for name in [*folders, *files])
