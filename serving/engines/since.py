"""Lists since an earlier job: those users are scored again of whom something else is known.

    output/_users/hashes.parquet   the user key and `hash`, for every user with a list
    output/_users/gone.parquet     of a job since another: users who had a list and have none now

A hash is of all that a list is made from besides model and filters: attributes, history, steps. So
late rows, rows taken back and other attributes are seen as new events are. A job since another
writes the lists of users who are new or whose hash differs, and the hashes of all users, so that
the next one can follow it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError, IntegrityError
from recsys.features.requests.row_hashes import VERSION, row_hashes
from recsys.features.tables.parquet_files import opened_parquet
from recsys.serving.engines.parts import JOB, SUCCESS
from recsys.serving.engines.shards import Shard, Shards

HASHES, GONE = Path("_users", "hashes.parquet"), Path("_users", "gone.parquet")
HASH = "hash"
_VERSION = b"recsys.row_hashes"
_OF_ONE_JOB = ("requests", "parts", "since")
"""Facts of a job that may differ from those of the job before it."""
_ALL = "score all users: leave out --since"


@dataclass(frozen=True)
class Hashed:
    """Users and a hash of what is known of each: ids (N,), hashes (N,) uint64."""

    ids: pa.Array
    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, requests: pa.Table, user_key: str) -> Self:
        """Hash requests, a row a user."""
        return cls(requests.column(user_key).combine_chunks(), row_hashes(requests))


@dataclass
class Incremental:
    """What a job has to do, and what it keeps for the next one.

    Attributes:
        shards: the requests that are answered.
        job: facts that identify the job.
        facts: for its summary.
    """

    shards: Shards
    job: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    _user_key: str = ""
    _whole: tuple[Shard, ...] = ()
    _hashed: dict[str, Hashed] = field(default_factory=dict)
    _gone: pa.Array | None = None

    @classmethod
    def of(
        cls, shards: Shards, job: Mapping[str, Any], user_key: str, previous: Path | None
    ) -> "Incremental":
        """Plan a job: of all users (`previous` None), or since the job that wrote `previous`.

        Raises:
            ConfigError: the requests are not of a log, or `previous` holds no finished job with
                the same model, filters and settings.
            IntegrityError: its hashes cannot be read.
        """
        if previous is None and not shards.of_log:
            return cls(shards, job)
        planned = cls(shards, job, _user_key=user_key, _whole=shards.parts)
        if previous is None:
            parts = tuple(replace(one, read=_Noting(one, planned)) for one in shards.parts)
            planned.shards = replace(shards, parts=parts)
            return planned
        if not shards.of_log:
            raise ConfigError("--since goes with --interactions: it compares users' histories")
        before, digest = _previous(previous, job, user_key)
        planned._compare(before)
        planned.job = {**job, "since": digest}
        planned.facts = {"since": str(previous), **planned.facts}
        return planned

    def finish(self, output: Path) -> None:
        """Write the hashes of all users, those of parts that were there before among them."""
        if not self._user_key:
            return
        for shard in self._whole:
            if shard.name not in self._hashed:
                self.note(shard.name, shard.read())
        found = [self._hashed[shard.name] for shard in self._whole]
        ids: Any = pa.chunked_array([one.ids for one in found], None if found else pa.string())
        hashes = [np.zeros(0, np.uint64), *(one.hashes for one in found)]
        table = pa.table({self._user_key: ids, HASH: np.concatenate(hashes)})
        (output / HASHES).parent.mkdir(exist_ok=True)
        _write(output / HASHES, table)
        if self._gone is not None:
            _write(output / GONE, pa.table({self._user_key: self._gone}))

    def note(self, name: str, requests: pa.Table) -> None:
        """Keep the hashes of a part's users."""
        self._hashed[name] = Hashed.of(requests, self._user_key)

    def _compare(self, before: Hashed) -> None:
        """Keep the requests of users who are new, or of whom something else is known."""
        parts = []
        new = changed = unchanged = 0
        there = np.zeros(len(before.ids), bool)
        for shard in self._whole:
            self.note(shard.name, shard.read())
        found = [self._hashed[shard.name] for shard in self._whole]
        ids: Any = pa.chunked_array([one.ids for one in found], None if found else pa.string())
        places = np.asarray(pc.index_in(ids, _like(before.ids, ids.type)).fill_null(-1))
        start = 0
        for shard, hashed in zip(self._whole, found, strict=True):
            place = places[start : start + len(hashed.ids)].astype(np.int64)
            start += len(hashed.ids)
            known = place >= 0
            there[place[known]] = True
            same = known.copy()
            same[known] = before.hashes[place[known]] == hashed.hashes[known]
            new += int((~known).sum())
            unchanged += int(same.sum())
            changed += int((known & ~same).sum())
            if not same.all():
                parts.append(replace(shard, read=_Chosen(shard, pa.array(~same))))
        self._gone = before.ids.filter(pa.array(~there))
        self.shards = replace(self.shards, parts=tuple(parts))
        counts = {"new_users": new, "changed_users": changed, "unchanged_users": unchanged}
        self.facts = {**counts, "gone_users": len(self._gone)}


@dataclass(frozen=True)
class _Noting:
    """Reads a shard and keeps the hashes of its users."""

    shard: Shard
    job: Incremental

    def __call__(self) -> pa.Table:
        requests = self.shard.read()
        self.job.note(self.shard.name, requests)
        return requests


@dataclass(frozen=True)
class _Chosen:
    """Reads some rows of a shard."""

    shard: Shard
    rows: pa.Array

    def __call__(self) -> pa.Table:
        return self.shard.read().filter(self.rows)


def _previous(folder: Path, job: Mapping[str, Any], user_key: str) -> tuple[Hashed, str]:
    """Return the users of an earlier job, and what identifies it.

    Raises:
        ConfigError, IntegrityError: as `Incremental.of`.
    """
    if not (folder / JOB).is_file():
        raise ConfigError(f"--since {folder}: no batch job has written there; {_ALL}")
    if not (folder / SUCCESS).is_file():
        raise ConfigError(
            f"--since {folder}: the job that writes there is not finished (no {SUCCESS}): run its "
            f"command again to finish it, or {_ALL}"
        )
    before = json.loads((folder / JOB).read_text())
    names = [name for name in {**before, **job} if name not in _OF_ONE_JOB]
    differ = [name for name in names if before.get(name) != job.get(name)]
    if differ:
        raise ConfigError(
            f"--since {folder}: its lists were made with another {' and '.join(differ)}, so none "
            f"of them stands; {_ALL}"
        )
    path = folder / HASHES
    if not path.is_file():
        raise ConfigError(
            f"--since {folder}: it does not say what its lists were made from ({HASHES} is "
            f"missing: not of a log, or of an earlier version); {_ALL}"
        )
    try:
        with opened_parquet(path, page_checksum_verification=True) as opened:
            table = opened.read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise IntegrityError(f"{path}: not as it was written ({reason}); {_ALL}") from None
    if (table.schema.metadata or {}).get(_VERSION) != str(VERSION).encode():
        raise ConfigError(f"--since {folder}: its hashes are of another version; {_ALL}")
    with path.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    hashes = np.asarray(table.column(HASH).combine_chunks())
    return Hashed(table.column(user_key).combine_chunks(), hashes), digest


def _like(ids: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return ids.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError(
            f"--since: the earlier job's users are {ids.type} ids, those of the log {kind}: write "
            f"them as before, or {_ALL}"
        ) from None


def _write(path: Path, table: pa.Table) -> None:
    with whole_file(path) as staging:
        kept = table.replace_schema_metadata({_VERSION: str(VERSION)})
        pq.write_table(kept, staging, write_page_checksum=True)
