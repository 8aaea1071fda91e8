"""Bundles by the path of their folder or of their run's; those in a store are fetched."""

from pathlib import Path
from typing import TypeVar

from recsys.bundle.directory import MANIFEST, RUN_BUNDLES, Bundle
from recsys.core.errors import NotFoundError
from recsys.core.remote.cached import FETCHED, fetched_folder
from recsys.core.remote.moving import fetch_file
from recsys.core.remote.path import RemotePath
from recsys.core.tracking_store import JOURNAL


def found_bundle(path: Path, cache: Path = FETCHED) -> Path:
    """Return the folder of the bundle at `path`, or of the one in it, or in the run's folder.

    One in a store is fetched, and every file of it verified. The journal of its run comes with it,
    so that MLflow's run is known of the copy, too.

    Args:
        path: of a bundle, a run, or a folder with one bundle.
        cache: where copies are kept, each below the hash of its manifest.

    Raises:
        NotFoundError: there is none, or there are several.
        IntegrityError: a file in a store is not what was written; it is named.
    """
    source = bundle_at(path)
    if not isinstance(source, RemotePath):
        return source
    folder = fetched_folder(source, MANIFEST, _check, cache)
    journal, run = folder.parent.parent / JOURNAL, source.parent.parent
    if not journal.exists() and len(run.within) > 1 and (run / JOURNAL).is_file():
        fetch_file(run / JOURNAL, journal)
    return folder


AnyPath = TypeVar("AnyPath", Path, RemotePath)


def bundle_at(path: AnyPath) -> AnyPath:
    """Return the path of the bundle at `path`, or of the one in it, or in the run's folder."""
    if (path / MANIFEST).is_file():
        return path
    inside = [
        one.parent
        for pattern in (f"{RUN_BUNDLES}/*/{MANIFEST}", f"*/{MANIFEST}")
        for one in path.glob(pattern)
        if not one.parent.name.startswith(".")  # what a killed process left half-written
    ]
    if len(inside) != 1:
        if isinstance(path, RemotePath):
            path.check_bucket()
        raise NotFoundError(
            f"{path}: neither a bundle ({MANIFEST} is missing) nor a run's folder with one"
        )
    return inside[0]


def _check(folder: Path, shown: Path) -> str:
    return Bundle.open(folder, shown).model_id
