"""Files that are small by their nature: lists of hashes, facts, configurations.

They are read whole before anything is known of them, so what cannot be one is refused first: a
pipe would be waited for, a device or a file full of holes would fill the memory.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from recsys.core.errors import IntegrityError
from recsys.core.remote.path import RemotePath

_MOST_BYTES = 256 << 20


def read_small(path: Path, again: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: the file.
        again: how to get it once more, for messages.

    Raises:
        IntegrityError: no regular file, or larger than any such file.
        OSError: it is not there.
    """
    refuse_irregular(path, again)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise IntegrityError(f"{path}: {size:,} bytes, no such file has so many; {again}")
    return path.read_bytes()


def refuse_irregular(path: Path, again: str) -> None:
    """Raise an `IntegrityError` where a path is a folder, pipe, socket or device.

    Raises:
        OSError: it is not there.
    """
    if isinstance(path, RemotePath):
        is_file = path.is_file()  # a store holds nothing else
    else:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    if not is_file:
        raise IntegrityError(f"{path}: not a regular file; {again}")


def parse_json(data: bytes | str) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: it is no JSON, or nested deeper than anything that is written.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
