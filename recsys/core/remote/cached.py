"""Folders of a store that have a manifest, fetched whole to where its hash names them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from recsys.core.errors import IntegrityError, NotFoundError
from recsys.core.remote.moving import fetch_folder
from recsys.core.remote.path import RemotePath

FETCHED = Path(".recsys_cache") / "fetched"
"""Where they are kept, below the working folder."""


def fetched_folder(
    address: RemotePath,
    manifest: str,
    check: Callable[[Path, Path], str],
    cache: Path = FETCHED,
) -> Path:
    """Return a folder of this machine with all files of one in a store, checked.

    It is fetched once: what is there already under the hash of its manifest is checked again.

    Args:
        address: of the folder.
        manifest: the name of its manifest.
        check: verifies the files in a folder against their manifest, and returns the folder's name;
            its second argument is what messages call the folder.
        cache: where it is kept, below the hash of its manifest.

    Raises:
        IntegrityError: a file in the store is not what was written; it is named.
    """
    digest = hashlib.sha256((address / manifest).read_bytes()).hexdigest()[:16]
    place = cache / digest / "bundle"
    for kept in place.iterdir() if place.is_dir() else ():
        try:
            check(kept, address)
            return kept
        except (IntegrityError, NotFoundError):
            shutil.rmtree(kept)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as scratch:
        copy = Path(scratch) / "copy"
        fetch_folder(address, copy)
        target = place / check(copy, address)
        try:
            os.rename(copy, target)
        except OSError:  # somebody else was quicker
            check(target, address)
    return target
