"""Batch scoring: requests in, recommendations in Parquet out, each user exactly once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.histories import Histories
from features.reading import open_table
from features.requests import HISTORY, request_table
from features.sessions import sessions_of
from features.sources import Sources
from features.tables import Tables, read_tables
from recsys.errors import ConfigError, DataError
from recsys.schema import CategoricalFeature, Schema
from serving.parts import mark_done, write_parts
from serving.score import Scorer

UNKNOWN = b"unknown_history_items"


@dataclass(frozen=True)
class Shard:
    """A part of the requests: the file name of its answers, and how to read it."""

    name: str
    read: Callable[[], pa.Table]


@dataclass(frozen=True)
class Shards:
    """All requests of a job; `fingerprint` tells one set of requests from another."""

    parts: tuple[Shard, ...]
    fingerprint: str


@dataclass(frozen=True)
class Summary:
    """What a job wrote, in users and lists."""

    output: str
    model_id: str
    parts: int
    parts_already_there: int
    users: int
    short_lists: int
    unknown_history_items: int


def score_to_parquet(
    scorer: Scorer,
    shards: Shards,
    output: Path,
    *,
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Score every shard into `output`; go on if a job like this one was stopped there.

    Raises:
        ConfigError: `output` holds another job's files.
    """
    job = {
        "model_id": scorer.bundle.model_id,
        "k": scorer.k,
        "filter_seen": scorer.filter_seen,
        "requests": shards.fingerprint,
        **({"probability": True} if scorer.probability else {}),
    }
    parts = {shard.name: partial(_answers, scorer, shard) for shard in shards.parts}
    there = write_parts(output, job, parts, on_part)
    users = short = unknown = 0
    for shard in shards.parts:
        answers = pq.read_table(output / shard.name, columns=["reason"])
        unknown += int((answers.schema.metadata or {}).get(UNKNOWN, b"0"))
        users += answers.num_rows
        short += answers.num_rows - answers.column("reason").null_count
    summary = Summary(
        str(output), scorer.bundle.model_id, len(shards.parts), there, users, short, unknown
    )
    mark_done(output, vars(summary))
    return summary


def shards_of_log(
    scorer: Scorer, sources: Sources, *, rows_per_part: int, users: pa.Array | None = None
) -> Shards:
    """Return the users of an interaction log (or those in `users`) with their histories.

    The log is read and checked by the rules that training used.

    Raises:
        DataError: a rule is broken, or a user of `users` is in no table.
    """
    schema = _schema_for_log(scorer.schema, steps=scorer.sessions is not None)
    open_table(sources.interactions, "interactions")  # what is not there is said first
    if schema.users is not None and sources.users is None:
        names = ", ".join(feature.name for feature in schema.features_of("users"))
        raise ConfigError(f"the model reads {names} of a users table; give --users PATH")
    tables = read_tables(
        schema, sources, scorer.policies.model_copy(update={"unknown_items": "keep"})
    )
    events = tables.events
    histories = Histories.build(
        events.user_row, events.item_row, events.time, tables.users.num_rows
    )
    sessions = None
    if scorer.sessions is not None:
        sessions = sessions_of(schema, events, scorer.sessions)
    chosen = _rows_of(tables, schema, users)
    starts = range(0, len(chosen), rows_per_part)

    def reader(start: int) -> Callable[[], pa.Table]:
        rows = chosen[start : start + rows_per_part]
        return lambda: request_table(schema, tables, histories, rows, sessions=sessions)

    total = len(starts)
    parts = tuple(
        Shard(f"part-{number:05d}-of-{total:05d}.parquet", reader(start))
        for number, start in enumerate(starts)
    )
    digest = hashlib.sha256(f"{tables.fingerprint} {rows_per_part}".encode())
    digest.update(chosen.tobytes())
    return Shards(parts, digest.hexdigest())


def shards_of_requests(scorer: Scorer, given: str) -> Shards:
    """Return the requests in Parquet files with user key and history, a shard a row group.

    `given` is a file, a folder or a glob.

    Raises:
        NotFoundError: no such file.
        DataError: a file lacks user key or history, or a user stands in two rows.
    """
    key = scorer.schema.user_key
    files = open_table(given, "requests")
    if files.format != "parquet":
        raise DataError(f"{given}: requests hold lists, which CSV cannot; write them as Parquet")
    paths = files.paths
    parts: list[Shard] = []
    digest = hashlib.sha256()
    keys: list[pa.ChunkedArray] = []
    for number, path in enumerate(paths):
        file = pq.ParquetFile(path)
        missing = [name for name in (key, HISTORY) if name not in file.schema_arrow.names]
        if missing:
            raise DataError(
                f"{path}: no column '{missing[0]}'; requests need '{key}' and '{HISTORY}' "
                "(lists of item ids); give --interactions to build histories from a log"
            )
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        keys.append(file.read(columns=[key]).column(key))
        for group in range(file.num_row_groups):
            name = f"part-{number:05d}-{group:05d}.parquet"
            parts.append(Shard(name, _group_reader(path, group)))
    _refuse_repeated(keys, key)
    return Shards(tuple(parts), digest.hexdigest())


def _group_reader(path: Path, group: int) -> Callable[[], pa.Table]:
    return lambda: pq.ParquetFile(path).read_row_group(group)


def _refuse_repeated(keys: list[pa.ChunkedArray], key: str) -> None:
    chunks = [chunk for column in keys for chunk in column.chunks]
    counts = pa.chunked_array(chunks).value_counts() if chunks else []
    twice = [entry for entry in counts if entry["counts"].as_py() > 1]
    if twice:
        raise DataError(
            f"requests, column '{key}': user {twice[0]['values'].as_py()!r} stands in "
            f"{twice[0]['counts']} rows ({len(twice)} users do); one row a user"
        )


def _schema_for_log(schema: Schema, *, steps: bool) -> Schema:
    """The schema without the catalogue, which the bundle holds: items are known by their ids."""
    of_events = schema.features_of("interactions") if steps else ()
    item = CategoricalFeature(name=schema.interactions.item, table="items")
    return schema.model_copy(
        update={
            "items": None,
            "others": {n: side for n, side in schema.others.items() if side.joins == "users"},
            "features": (item, *schema.features_of("users"), *of_events),
        }
    )


def _rows_of(tables: Tables, schema: Schema, users: pa.Array | None) -> np.ndarray[Any, Any]:
    known = tables.users.column(schema.user_key).combine_chunks()
    if users is None:
        return np.arange(len(known))
    rows = pc.index_in(users.cast(known.type), known)
    if rows.null_count:
        stranger = users.filter(rows.is_null())[0].as_py()
        raise DataError(
            f"user {stranger!r} ({rows.null_count} users in all) is in neither the interactions "
            "nor the users table"
        )
    return np.unique(np.asarray(rows, np.int64))


def _answers(scorer: Scorer, shard: Shard) -> pa.Table:
    """Return one part, with the number of history items that the catalogue lacks beside it."""
    requests = scorer.encode(shard.read())
    counted = {UNKNOWN: str(requests.unknown_items).encode()}
    return scorer.answer(requests).replace_schema_metadata(counted)
