"""What a trained model on disk is: an immutable folder named by its content, hash-checked.

A bundle knows nothing of what it holds. `manifest.json` lists every file with size and sha256;
the folder's name is a hash of the manifest. Nothing is parsed before its bytes were verified,
nothing is overwritten, and a folder under a model's id is complete: it was renamed there last.

    <model_id>/manifest.json   schema_version, engine_version, created, files, facts
    <model_id>/...             the files, in whatever folders the writer chose
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import IntegrityError, NotFoundError
from recsys.core.hashed_files import HashedFiles, entries_of, well_formed
from recsys.core.small_files import parse_json, read_small

MANIFEST = "manifest.json"
RUN_BUNDLES = "bundle"
"""Folder of a run that holds its bundles."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `path` is its folder, `manifest` what manifest.json says."""

    path: Path
    model_id: str
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, shown: Path | None = None) -> Self:
        """Verify the bundle in `path`: every file's name, size and sha256, and no file more.

        Args:
            path: its folder.
            shown: what messages call the folder, where it is a copy; None: as it is.

        Raises:
            NotFoundError: no such folder, or no manifest in it.
            IntegrityError: a file is missing, is not what was written, or should not be there.
        """
        manifest_path = path / MANIFEST
        if not manifest_path.is_file() or manifest_path.is_symlink():
            raise NotFoundError(f"{shown or path}: no bundle here (no {MANIFEST})")
        said = (shown or path) / MANIFEST
        manifest = _parse(manifest_path, said)
        model_id = _model_id(manifest)
        if manifest.get("model_id") != model_id:
            raise IntegrityError(
                f"{said}: says model {manifest.get('model_id')}, its content is {model_id}"
            )
        bundle = cls(path, model_id, manifest)
        replace(bundle._files, shown=shown).check()
        return bundle

    def names(self) -> list[str]:
        """Return the files' names, sorted."""
        return self._files.names()

    def copy_to(self, folder: Path) -> None:
        """Write all files of the bundle but its manifest into a folder."""
        for name in self.names():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.read(name))

    def has(self, name: str) -> bool:
        """Whether the bundle holds `name`."""
        return name in self.names()

    def read(self, name: str) -> bytes:
        """Return the bytes of `name`, verified once more: what is parsed is what was checked.

        Raises:
            NotFoundError: the bundle does not list the file.
            IntegrityError: the bytes are not those that were written.
        """
        return self._files.read(name)

    def text(self, name: str) -> str:
        """Return `name` as UTF-8 text."""
        return self.read(name).decode()

    def json(self, name: str) -> Any:
        """Return `name` parsed as JSON."""
        content = self.read(name)
        try:
            return parse_json(content)
        except ValueError as error:
            raise IntegrityError(f"{self.path / name}: no JSON ({error})") from None

    def manifest_sha256(self) -> str:
        """Return the hash of the manifest as it is, with its date."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    @property
    def _files(self) -> HashedFiles:
        return HashedFiles(self.path, self.manifest["files"], MANIFEST, "bundle")


def undated(path: Path) -> None:
    """Leave out of a bundle's manifest when it was written: a copy inside another has no date."""
    manifest = _parse(path / MANIFEST, path / MANIFEST)
    manifest.pop("created", None)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False))


def bundles_of_run(folder: Path) -> list[Path]:
    """Return the folders of the bundles that a training left below `folder`, its run's."""
    return bundles_in(folder / RUN_BUNDLES)


def bundles_in(parent: Path) -> list[Path]:
    """Return the bundles in a folder, sorted; what a killed process left half-written is none."""
    found = sorted(path.parent for path in parent.glob(f"*/{MANIFEST}"))
    return [path for path in found if not path.name.startswith(".")]


def write_bundle(parent: Path, write: Callable[[Path], None], *, facts: Mapping[str, Any]) -> Path:
    """Write a bundle below `parent` and return its folder, parent/<model_id>.

    Args:
        parent: folder for bundles, made where missing.
        write: fills an empty folder with the files.
        facts: JSON facts about the content, kept in the manifest under "facts".

    A bundle of the same content that is there already is returned unchanged. On an error
    nothing is left behind.
    """
    with staged_folder(parent, "bundle") as staging:
        write(staging)
        manifest: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "engine_version": version("recsys-engine"),
            "files": entries_of(staging),
            "facts": dict(facts),
        }
        model_id = _model_id(manifest)
        manifest |= {"model_id": model_id, "created": datetime.now(UTC).isoformat()}
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
        (staging / MANIFEST).write_text(text)
        target = parent / model_id
        if not target.exists():
            publish(staging, target, MANIFEST)
    Bundle.open(target)
    return target


def _model_id(manifest: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the sha256 of all but id and date."""
    content = {k: value for k, value in manifest.items() if k not in ("model_id", "created")}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _parse(path: Path, shown: Path) -> dict[str, Any]:
    try:
        manifest = parse_json(read_small(path, "get the bundle again"))
        version_found, files = manifest["schema_version"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{shown}: not a manifest ({error!r})") from None
    if version_found != SCHEMA_VERSION or not well_formed(files):
        raise IntegrityError(
            f"{shown}: manifest of version {version_found}; this engine reads {SCHEMA_VERSION}"
        )
    return dict(manifest)
