"""Bundles in a store: found at an address or in the folder of a run, fetched and verified."""

from pathlib import Path

from recsys.bundle.directory import MANIFEST, Bundle, bundles_of_run
from recsys.core.errors import NotFoundError
from recsys.core.remote.cached import FETCHED, fetched_folder
from recsys.core.remote.moving import fetch_file
from recsys.core.remote.path import RemotePath
from recsys.core.tracking_store import JOURNAL


def fetched_bundle(address: RemotePath, cache: Path = FETCHED) -> Path:
    """Return the folder of a copy of a bundle on this machine, every file verified.

    The journal of its run comes with it, so that MLflow's run is known of the copy, too.

    Args:
        address: of the bundle, or of a run's folder with one.
        cache: where copies are kept, each below the hash of its manifest.

    Raises:
        NotFoundError: there is none.
        IntegrityError: a file is missing, is not what was written, or should not be there.
    """
    source = _bundle_at(address)
    folder = fetched_folder(source, MANIFEST, _check, cache)
    journal, run = folder.parent.parent / JOURNAL, source.parent.parent
    if not journal.exists() and len(run.within) > 1 and (run / JOURNAL).is_file():
        fetch_file(run / JOURNAL, journal)
    return folder


def _bundle_at(address: RemotePath) -> RemotePath:
    if (address / MANIFEST).is_file():
        return address
    inside = [one for one in bundles_of_run(address) if isinstance(one, RemotePath)]
    inside = inside or [one.parent for one in address.glob(f"*/{MANIFEST}")]
    if len(inside) != 1:
        address.check_bucket()
        raise NotFoundError(
            f"{address}: neither a bundle ({MANIFEST} is missing) nor a run's folder with one"
        )
    return inside[0]


def _check(folder: Path, shown: Path) -> str:
    return Bundle.open(folder, shown).model_id
