"""The journal of a run: everything that is tracked, one JSON a line, on disk before it is sent.

`journal.jsonl` only grows. `tracking.json` next to it says, store by store, up to where the
journal was delivered, and as which run; it is replaced as a whole after every batch. A line ends
with its checksum, and the file of positions begins with its own: what was damaged on the disk is
named, and never sent.
"""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.core.atomic import write_whole
from recsys.core.errors import IntegrityError, NotFoundError
from recsys.core.self_hashed import read_self_hashed, self_hashed
from recsys.core.small_files import parse_json
from recsys.core.tracking_store import JOURNAL

POSITION, LOCK = "tracking.json", "tracking.lock"
Record = dict[str, Any]
DAMAGED = "damaged"
"""The kind of a record whose line is not what was written."""
_CHECK = ', "check": "'


@dataclass
class Position:
    """How far one store is: bytes and records of the journal that it has, and the run there.

    `problems` names what the store refused for good or what was gone when its turn came.
    """

    run_id: str | None = None
    offset: int = 0
    sent: int = 0
    problems: list[str] = field(default_factory=list)


class Journal:
    """Appends records with ascending numbers; one writer a folder."""

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / JOURNAL
        self.old = list(read(run_dir)) if self.path.exists() else []
        self.file = self.path.open("ab")
        # A kill may have left half a line, which was not sent.
        self.file.truncate(self.old[-1][1] if self.old else 0)
        self.next = len(self.old)

    def append(self, record: Record) -> None:
        """Write a record through to the operating system: it outlives this process."""
        self.file.write(line_of({"seq": self.next, **record}))
        self.file.flush()
        self.next += 1

    def close(self) -> None:
        """Write through to the disk and let go of the file."""
        os.fsync(self.file.fileno())
        self.file.close()


def sync(run_dir: Path) -> None:
    """Write the journal through to the disk: it outlives the machine."""
    with (run_dir / JOURNAL).open("rb") as file:
        os.fsync(file.fileno())


def read(run_dir: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield the whole records from byte `offset` on, each with the offset of its end.

    One that is not what was written comes as a record of kind `DAMAGED`.
    """
    path = run_dir / JOURNAL
    if not path.is_file():
        raise NotFoundError(f"{run_dir}: no run to deliver ({JOURNAL} is missing)")
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield _record(line), offset


def line_of(record: Record) -> bytes:
    """Return the line of a record, with its checksum."""
    text = json.dumps(record, allow_nan=False)
    return f'{text[:-1]}{_CHECK}{_checksum(text)}"}}\n'.encode()


def _record(line: bytes) -> Record:
    try:
        text = line.decode()
        record: Record = parse_json(text)
    except ValueError:
        return {"kind": DAMAGED}
    whole, _, check = text.rpartition(_CHECK)
    if check != f'{_checksum(whole + "}")}"}}\n':
        return {"kind": DAMAGED}
    return record


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def load_position(run_dir: Path, uri: str) -> Position:
    """Return how far the store `uri` is with the journal in `run_dir`.

    Raises:
        IntegrityError: the file of positions is not what was written.
    """
    return Position(**_positions(run_dir).get(uri, {}))


def parent_tag(run_dir: Path, record: Record, uri: str) -> dict[str, str]:
    """Return the tag by which MLflow nests the run that `record` starts; empty: it has no parent.

    Raises:
        NotFoundError: the store `uri` has not got the run around it yet.
    """
    if "parent" not in record:
        return {}
    parent = run_dir / record["parent"]
    run_id = load_position(parent, uri).run_id
    if run_id is None:
        raise NotFoundError(f"deliver the enclosing run first: {parent.resolve()}")
    return {"mlflow.parentRunId": run_id}


def save_position(run_dir: Path, uri: str, position: Position) -> None:
    """Replace the position of one store, whole or not at all."""
    positions = {**_positions(run_dir), uri: asdict(position)}
    write_whole(run_dir / POSITION, self_hashed({"stores": positions}))


@contextmanager
def delivering(run_dir: Path, timeout: float) -> Iterator[bool]:
    """Hold the right to deliver this journal; False where another holds it for `timeout` s."""
    from filelock import FileLock, Timeout

    lock = FileLock(run_dir / LOCK)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _positions(run_dir: Path) -> dict[str, Any]:
    path = run_dir / POSITION
    if not path.is_file():
        return {}
    again = "remove it, and the run is delivered again as a whole, as the same run"
    stores = read_self_hashed(path, again).get("stores")
    if not isinstance(stores, dict):
        raise IntegrityError(f"{path}: no positions of stores; {again}")
    return stores
