"""Batch scoring: requests in, recommendations in Parquet out, each user exactly once."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import ConfigError, DataError, Row
from recsys.core.events import Listener, ignore
from recsys.core.remote.path import RemotePath
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.steps import refuse_unknown_columns
from recsys.features.requests.table import require_columns
from recsys.features.tables.id_forms import written_column, written_like
from recsys.features.tables.parquet_files import opened_parquet, read_columns
from recsys.features.tables.plain_values import plain_table
from recsys.features.tables.reading import open_table, table_at
from recsys.features.tables.sources import Sources, path_words
from recsys.serving.engines.batches import answers_to
from recsys.serving.engines.logged import logged_users, rows_of
from recsys.serving.engines.parts import mark_done, write_parts
from recsys.serving.engines.shards import Shard, Shards
from recsys.serving.engines.since import Incremental
from recsys.serving.engines.tally import Summary, Tally
from recsys.serving.engines.workers import Shared, Team
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.scorer import Scorer


def score_to_parquet(
    scorer: Scorer,
    shards: Shards,
    output: Path,
    *,
    filters: Filters | None = None,
    listener: Listener = ignore,
    team: Team | None = None,
    since: Path | None = None,
) -> Summary:
    """Score every shard into `output`; continue if a job like this one was stopped there.

    `filters` say what may be in the lists, besides those that requests have themselves. `team`:
    processes that open the same scorer and share the parts; None: this one alone. `since`: the
    output of an earlier job; users of whom nothing else is known since are left out.

    Raises:
        ConfigError: `output` holds another job's files, or `since` is no such output.
        WorkerError: a process of the team is gone.
    """
    filters = filters or Filters.of(scorer)
    job = scorer.job() | {"requests": shards.fingerprint}
    job |= {"filters": dict(filters.job)} if filters.job else {}
    plan = Incremental.of(shards, job, scorer.schema.user_key, since)
    shards, job = plan.shards, dict(plan.job)
    parts = {shard.name: partial(_answers, scorer, filters, shard) for shard in shards.parts}
    orders = {shard.name: shard.order for shard in shards.parts}
    shared = None if team is None else Shared(team, orders)
    there = write_parts(output, job, parts, listener, shared)
    tally = Tally()
    for shard in shards.parts:
        tally.add(read_columns(output / shard.name, ["reason"]))
    summary = Summary.of(
        tally,
        scorer,
        filters,
        output=str(output),
        parts=len(shards.parts),
        parts_already_there=there,
        of_since=plan.facts,
    )
    plan.finish(output)
    mark_done(output, summary.facts())
    return summary


def shards_of_log(
    scorer: Scorer, sources: Sources, *, rows_per_part: int, users: pa.Array | None = None
) -> Shards:
    """Return the users of an interaction log (or those in `users`) with their histories.

    The log is read and checked by the rules that training used.

    Raises:
        ConfigError: `rows_per_part` is not positive.
        DataError: a rule is broken, or a user of `users` is in no table.
    """
    if rows_per_part < 1:
        raise ConfigError(f"--rows-per-part must be at least 1, got {rows_per_part}")
    found = logged_users(scorer, sources)
    if users is not None:
        users = written_like(users, scorer.schema.ids.users, pa.large_string())
    chosen = rows_of(found.tables, scorer.schema, users)
    starts = range(0, len(chosen), rows_per_part)

    def reader(start: int) -> Callable[[], pa.Table]:
        return lambda: found.requests(chosen[start : start + rows_per_part])

    total, origin = len(starts), RequestOrigin(path_words(sources.interactions))
    parts = tuple(
        Shard(f"part-{number:05d}-of-{total:05d}.parquet", reader(start), origin)
        for number, start in enumerate(starts)
    )
    digest = hashlib.sha256(f"{found.tables.fingerprint} {rows_per_part}".encode())
    digest.update(chosen.tobytes())
    digest.update(found.relations_fingerprint.encode())
    return Shards(parts, digest.hexdigest(), of_log=True)


def shards_of_requests(scorer: Scorer, given: str, *, with_history: bool = True) -> Shards:
    """Return the requests in Parquet files with user key and history, a shard a row group.

    `given` is a file, a folder or a glob; `with_history`: whether a history must be there.

    Raises:
        NotFoundError: no such file.
        DataError: a file lacks user key or history, or has a column that is named like one of
            steps but is none; a user is in two rows.
    """
    key = scorer.schema.user_key
    files = open_table(given, "requests")
    if files.format != "parquet":
        raise DataError(
            "requests hold lists, which CSV cannot", file=given, remedy="write them as Parquet"
        )
    paths = files.paths
    parts: list[Shard] = []
    digest = hashlib.sha256()
    keys: list[pa.ChunkedArray] = []
    for number, path in enumerate(paths):
        with opened_parquet(path) as file:
            if with_history:
                _check_columns(scorer, path, file.schema_arrow.names)
            read = plain_table(file.read(columns=[key]))
            sizes = [file.metadata.row_group(one).num_rows for one in range(file.num_row_groups)]
        digest.update(_content_mark(path))
        own = written_column(read, key, scorer.schema.ids.users)
        keys.append(own.column(key))
        first = 0
        for group, size in enumerate(sizes):
            name = f"part-{number:05d}-{group:05d}.parquet"
            parts.append(Shard(name, _group_reader(path, group), RequestOrigin(str(path), first)))
            first += size
    _refuse_repeated(paths, keys, key)
    return Shards(tuple(parts), digest.hexdigest())


def _content_mark(path: Path) -> bytes:
    """Return the hash of a file's content, of one in a store the checksum that is kept there."""
    if isinstance(path, RemotePath):
        return path.version().encode()
    with path.open("rb") as whole:
        return hashlib.file_digest(whole, "sha256").digest()


def _group_reader(path: Path, group: int) -> Callable[[], pa.Table]:
    def read() -> pa.Table:
        with opened_parquet(path) as file:
            return file.read_row_group(group)

    return read


def _check_columns(scorer: Scorer, path: Path, names: list[str]) -> None:
    remedy = "give --interactions to build histories from a log"
    require_columns(scorer.schema, table_at(path, "requests", names), remedy)
    if scorer.sessions is not None:
        refuse_unknown_columns(scorer.schema, names, RequestOrigin(str(path)))


def _refuse_repeated(paths: tuple[Path, ...], keys: Sequence[pa.ChunkedArray], key: str) -> None:
    """Refuse a user who is in two rows; a null one is refused where rows are read."""
    chunks = [chunk for column in keys for chunk in column.chunks]
    counts = pa.chunked_array(chunks).drop_null().value_counts() if chunks else []
    twice = [entry for entry in counts if entry["counts"].as_py() > 1]
    if not twice:
        return
    user = twice[0]["values"]
    rows = [np.flatnonzero(np.asarray(pc.equal(column, user).fill_null(False))) for column in keys]
    places = [
        Row(str(path), int(row) + 1)
        for path, found in zip(paths, rows, strict=True)
        for row in found
    ]
    raise DataError(
        f"user {user.as_py()!r} is in {len(places)} rows ({len(twice)} users do), first in row "
        f"{places[0].number} of {places[0].file}",
        column=key,
        rows=places[1:2],
        remedy="keep one row a user",
    )


def _answers(scorer: Scorer, filters: Filters, shard: Shard) -> pa.Table:
    return answers_to(scorer, filters, shard.read(), shard.origin)
