"""Which code encodes: a digest of its files, so that no cache outlives a change of them."""

import functools
import hashlib
from pathlib import Path

import recsys.core
import recsys.data
import recsys.embeddings
import recsys.features

_PACKAGES = (recsys.core, recsys.data, recsys.embeddings, recsys.features)
_ENDINGS = frozenset({".py", ".cc"})


@functools.cache
def code_digest() -> str:
    """Return the sha256 (hex) of the files of all code that reads and encodes tables."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        folder = Path(package.__path__[0])
        for path in sorted(one for one in folder.rglob("*") if one.suffix in _ENDINGS):
            data = path.read_bytes()
            # Lengths distinguish "ab" + "c" from "a" + "bc".
            digest.update(f"{path.relative_to(folder)} {len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()
