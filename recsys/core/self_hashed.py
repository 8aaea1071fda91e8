"""A JSON file whose first lines hold the sha256 of all that follows.

    {
     "sha256": "...",
     ... facts ...
    }

Any tool can check it: `tail -n +3 FILE | sha256sum`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.core.errors import IntegrityError
from recsys.core.small_files import parse_json, read_small

_HEAD = b'{\n "sha256": "%s",\n'
_HEAD_BYTES = len(_HEAD % (b"0" * 64))


def self_hashed(facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of such a file."""
    rest = json.dumps(dict(facts), indent=1, allow_nan=False).encode()[2:] + b"\n"
    return _HEAD % hashlib.sha256(rest).hexdigest().encode() + rest


def read_self_hashed(path: Path, again: str, shown: Path | None = None) -> dict[str, Any]:
    """Return the facts of a file, once its bytes are those that its first lines name.

    Args:
        path: the file.
        again: how to get it once more, for messages: "export the model again".
        shown: what messages call the file, where it is a copy; None: as it is.

    Raises:
        IntegrityError: it is not what was written.
    """
    data, said_of = read_small(path, again), shown or path
    rest = data[_HEAD_BYTES:]
    found = hashlib.sha256(rest).hexdigest().encode()
    if data[:_HEAD_BYTES] == _HEAD % found:
        try:
            facts: dict[str, Any] = parse_json(b"{" + rest)
        except ValueError as error:
            raise IntegrityError(f"{path}: no JSON ({error}); {again}") from None
        return facts
    said = data[:_HEAD_BYTES].decode(errors="replace").split('"')
    if len(said) < 4 or said[1] != "sha256":
        raise IntegrityError(
            f"{said_of}: no sha256 of itself: it was changed, or an earlier engine wrote it; "
            f"{again}"
        )
    raise IntegrityError(
        f"{said_of}: its content has sha256 {found[:12].decode()}..., it says {said[3][:12]}...: "
        f"the file was changed after it was written; {again}"
    )
