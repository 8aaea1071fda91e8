"""The manifest of an export: what was exported, how to ask it, and the hash of every file.

    export.json    {"sha256": ..., "schema_version": ..., "engine_version": ..., "target": ...,
                   "model_id": ..., facts of the target ..., "files": [{path, bytes, sha256}]}

The first two lines hold the sha256 of all bytes that follow them, so that any tool can check it:

    tail -n +3 export.json | sha256sum

Example:
    export = open_export(Path("index"))     # every file was verified
    vectors = load(export.read("vectors.safetensors"))["vectors"]
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recsys.core.errors import IntegrityError, NotFoundError
from recsys.core.hashed_files import HashedFiles, entries_of, well_formed
from recsys.core.remote.cached import fetched_folder
from recsys.core.remote.path import RemotePath
from recsys.core.self_hashed import read_self_hashed, self_hashed

EXPORT_FILE = "export.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Export:
    """A verified export. path: its folder. facts: what export.json says, its `files` as well."""

    path: Path
    facts: Mapping[str, Any]

    def names(self) -> list[str]:
        """Return the files' names, sorted."""
        return self._files.names()

    def read(self, name: str) -> bytes:
        """Return the bytes of `name`, verified once more: what is parsed is what was checked.

        Raises:
            NotFoundError: the export holds no such file.
            IntegrityError: the bytes are not those that were written.
        """
        return self._files.read(name)

    @property
    def _files(self) -> HashedFiles:
        return HashedFiles(self.path, self.facts["files"], EXPORT_FILE, "export")


def write_manifest(folder: Path, target: str, facts: Mapping[str, Any]) -> None:
    """Write export.json over all files that are in `folder`; nothing may be added afterwards.

    Args:
        folder: of the export.
        target: what `recsys export --to` calls it.
        facts: JSON facts about the content and how to ask it.
    """
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "engine_version": version("recsys-engine"),
        "target": target,
        **facts,
        "files": entries_of(folder),
    }
    (folder / EXPORT_FILE).write_bytes(self_hashed(manifest))


def open_export(folder: Path, shown: Path | None = None) -> Export:
    """Verify the export in `folder`: its manifest, every file's size and sha256, no file more.

    Nothing is parsed before its bytes were verified.

    Args:
        folder: of the export.
        shown: what messages call the folder, where it is a copy; None: as it is.

    Raises:
        NotFoundError: no such folder, or no export.json in it.
        IntegrityError: a file is missing, is not what was written, or should not be there.
    """
    path = folder / EXPORT_FILE
    if not path.is_file() or path.is_symlink():
        raise NotFoundError(f"{shown or folder}: no export here (no {EXPORT_FILE})")
    export = Export(folder, _parsed(path, (shown or folder) / EXPORT_FILE))
    replace(export._files, shown=shown).check()
    return export


def fetched_export(folder: Path) -> Path:
    """Return the folder of an export: one in a store is fetched and verified first.

    Raises:
        NotFoundError: there is none.
        IntegrityError: a file in the store is not what was written; it is named.
    """
    if not isinstance(folder, RemotePath):
        return folder
    if not (folder / EXPORT_FILE).is_file():
        raise NotFoundError(f"{folder}: no export here (no {EXPORT_FILE})")
    return fetched_folder(folder, EXPORT_FILE, _name_of)


def _name_of(folder: Path, shown: Path) -> str:
    open_export(folder, shown)
    return shown.name


def _parsed(path: Path, shown: Path) -> dict[str, Any]:
    """Return what the manifest says, once its bytes are those that its first lines name."""
    again = "export the model again, or get the export again"
    manifest = read_self_hashed(path, again, shown)
    written, files = manifest.get("schema_version"), manifest.get("files")
    if written != SCHEMA_VERSION or not well_formed(files):
        raise IntegrityError(
            f"{shown}: manifest of version {written}; this engine reads {SCHEMA_VERSION}: update "
            "the engine, or export the model again"
        )
    return manifest
