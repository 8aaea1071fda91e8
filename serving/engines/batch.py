"""Batch scoring: requests in, recommendations in Parquet out, each user exactly once."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.core.distinct import distinct
from recsys.core.errors import ConfigError, DataError, Row
from recsys.core.events import Listener, ignore
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.sessions import sessions_of
from recsys.features.kinds.categorical import CategoricalFeature
from recsys.features.pipeline.requests import whole_requests
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.steps import refuse_unknown_columns
from recsys.features.requests.table import request_table, require_columns
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.id_forms import written_column, written_like
from recsys.features.tables.plain_values import plain_table
from recsys.features.tables.reading import open_table, table_at
from recsys.features.tables.sources import Sources, path_words
from recsys.serving.engines.answers import answers_to
from recsys.serving.engines.parts import mark_done, write_parts
from recsys.serving.engines.shards import Shard, Shards
from recsys.serving.engines.since import Incremental
from recsys.serving.engines.unknown_items import UNKNOWN_LISTED, UnknownItems
from recsys.serving.engines.workers import Shared, Team
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.reasons import CANDIDATES, FILTERED, RELEVANCE, RULES
from recsys.serving.recommend.scorer import LISTED, OF_SOURCES, POPULAR, Scorer


@dataclass(frozen=True)
class Summary:
    """What a job wrote, in users and lists.

    lists_by_popularity: of users of whose history a model that counts knows nothing; null of
    models that always have something to say. of_pipeline: of a pipeline, what its lists lack
    and which sources fell back on popularity; of_relevance: of a model that knows where relevance
    ends, how many lists end there, and their mean length; of_since: of a job since an earlier one,
    how many users are new, changed, unchanged and gone. seen_items: what became of them, and why.
    search: how items were found.
    first_unknown_history_item: null where none is. filters: what is known of the filters.
    """

    output: str
    model_id: str
    parts: int
    parts_already_there: int
    users: int
    short_lists: int
    lists_by_popularity: int | None
    seen_items: str
    search: str
    unknown_history_items: int
    first_unknown_history_item: Any
    filters: Mapping[str, Any]
    of_pipeline: Mapping[str, Any]
    of_relevance: Mapping[str, Any]
    of_since: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Return everything by name; of a job without filters nothing is said of them."""
        found = dict(vars(self))
        names = ("of_since", "of_relevance", "of_pipeline", "filters")
        more = [found.pop(name) for name in names]
        return {**found, **more[0], **more[1], **more[2], **more[3]}


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
    shards = plan.shards
    parts = {shard.name: partial(_answers, scorer, filters, shard) for shard in shards.parts}
    orders = {shard.name: shard.order for shard in shards.parts}
    helping = None if team is None else Shared(team, orders)
    there = write_parts(output, plan.job, parts, listener, helping)
    summary = _summed(scorer, filters, plan, output, there)
    plan.finish(output)
    mark_done(output, summary.facts())
    return summary


def _summed(
    scorer: Scorer, filters: Filters, plan: Incremental, output: Path, there: int
) -> Summary:
    """Return what the parts in `output` hold, of which `there` were there before."""
    shards = plan.shards
    users = listed_items = 0
    popular: int | None = None
    short, of_sources = Counter[str](), Counter[str]()
    unknown, listed = UnknownItems(), UnknownItems(UNKNOWN_LISTED)
    for shard in shards.parts:
        answers = pq.read_table(output / shard.name, columns=["reason"])
        facts = answers.schema.metadata or {}
        if POPULAR in facts:
            popular = (popular or 0) + int(facts[POPULAR])
        of_sources.update(json.loads(facts.get(OF_SOURCES, b"{}")))
        listed_items += int(facts.get(LISTED, b"0"))
        unknown.add(answers)
        users += answers.num_rows
        listed.add(answers)
        short.update(answers.column("reason").drop_null().to_pylist())
    ended = {"lists_cut": short[RELEVANCE], "mean_list_length": listed_items / max(users, 1)}
    return Summary(
        output=str(output),
        model_id=scorer.bundle.model_id,
        parts=len(shards.parts),
        parts_already_there=there,
        users=users,
        short_lists=short.total(),
        lists_by_popularity=popular,
        seen_items=scorer.seen_items,
        search=scorer.searched,
        unknown_history_items=unknown.count,
        first_unknown_history_item=unknown.first,
        filters=_counted(filters, listed, short[FILTERED]),
        of_pipeline=_of_pipeline(short, of_sources) if scorer.description.has_sources else {},
        of_relevance=ended if scorer.cut else {},
        of_since=plan.facts,
    )


def _of_pipeline(short: Counter[str], of_sources: Counter[str]) -> dict[str, Any]:
    """Return what a summary says of a pipeline's lists: why short, and which sources fell back."""
    return {
        "lists_short_by_candidates": short[CANDIDATES],
        "lists_short_by_rules": short[RULES],
        "sources_by_popularity": dict(of_sources) or None,
    }


def _counted(filters: Filters, own: UnknownItems, filtered: int) -> dict[str, Any]:
    """Return what a summary says of filters, those that requests have themselves among them."""
    count, first = filters.unknown()
    found = filters.counts()
    if found or own.count or filtered:
        found["lists_short_by_filters"] = filtered
        found["unknown_listed_items"] = count + own.count
        found["first_unknown_listed_item"] = first if count else own.first
    return found


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
    has_steps = scorer.sessions is not None or scorer.description.has_sources
    schema = _schema_for_log(scorer.schema, steps=has_steps)
    if not _reads_features(scorer):
        schema, sources = _of_ids_alone(schema, sources)
    open_table(sources.interactions, "interactions")  # what is not there is said first
    if schema.users is not None and sources.users is None:
        names = ", ".join(feature.name for feature in schema.features_of("users"))
        raise ConfigError(
            f"the model reads {names} of a users table: give it as users (--users PATH)"
        )
    policies = scorer.policies.model_copy(update={"unknown_items": "keep"})
    tables = read_tables(schema, sources, policies)
    events = tables.events
    histories = Histories.build(
        events.user_row, events.item_row, events.time, tables.users.num_rows
    )
    sessions = None
    if scorer.sessions is not None:
        sessions = sessions_of(schema, events, scorer.sessions)
    users = None if users is None else written_like(users, schema.ids.users, pa.large_string())
    chosen = rows_of(tables, schema, users)
    starts = range(0, len(chosen), rows_per_part)

    every = np.ones(len(events), bool)

    def reader(start: int) -> Callable[[], pa.Table]:
        rows = chosen[start : start + rows_per_part]
        if scorer.description.has_sources:
            return lambda: whole_requests(schema, tables, every, rows)
        return lambda: request_table(schema, tables, histories, rows, sessions=sessions)

    total, origin = len(starts), RequestOrigin(path_words(sources.interactions))
    parts = tuple(
        Shard(f"part-{number:05d}-of-{total:05d}.parquet", reader(start), origin)
        for number, start in enumerate(starts)
    )
    digest = hashlib.sha256(f"{tables.fingerprint} {rows_per_part}".encode())
    digest.update(chosen.tobytes())
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
        file = pq.ParquetFile(path)
        if with_history:
            _check_columns(scorer, path, file.schema_arrow.names)
        with path.open("rb") as whole:
            digest.update(hashlib.file_digest(whole, "sha256").digest())
        read = plain_table(file.read(columns=[key]))
        own = written_column(read, key, scorer.schema.ids.users)
        keys.append(own.column(key))
        first = 0
        for group in range(file.num_row_groups):
            name = f"part-{number:05d}-{group:05d}.parquet"
            parts.append(Shard(name, _group_reader(path, group), RequestOrigin(str(path), first)))
            first += file.metadata.row_group(group).num_rows
    _refuse_repeated(paths, keys, key)
    return Shards(tuple(parts), digest.hexdigest())


def _group_reader(path: Path, group: int) -> Callable[[], pa.Table]:
    return lambda: pq.ParquetFile(path).read_row_group(group)


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


def _schema_for_log(schema: Schema, *, steps: bool) -> Schema:
    """The schema of what scoring reads of a log.

    Without the catalogue, which the bundle holds: items are known by their ids.
    """
    of_events = schema.features_of("interactions") if steps else ()
    item = CategoricalFeature(name=schema.interactions.item, table="items")
    roles = schema.interactions.model_copy(update={"targets": None})
    if roles.events is not None and not (roles.events.undo or roles.events.seen):
        roles = roles.model_copy(update={"events": None})  # how much rows count is of training
    if not steps:
        roles = roles.model_copy(update={"session": None})
    return schema.model_copy(
        update={
            "interactions": roles,
            "items": None,
            "others": {n: side for n, side in schema.others.items() if side.joins == "users"},
            "features": (item, *schema.features_of("users"), *of_events),
        }
    )


def _reads_features(scorer: Scorer) -> bool:
    """Whether the model, or a part of a pipeline, reads more than the items of histories."""
    search = scorer.found_by
    if isinstance(search, PipelineSearch):
        of_sources = any(source.description.reads_features for source in search.sources)
        return of_sources or isinstance(search.joined.ranker, RowRanker)
    return scorer.description.reads_features


def _of_ids_alone(schema: Schema, sources: Sources) -> tuple[Schema, Sources]:
    """Return both for a model that reads the items of histories alone.

    A table of users, where one is given, says which users there are.
    """
    users = None if sources.users is None else schema.users
    items = schema.features_of("items")
    changes: dict[str, Any] = {"users": users, "others": {}, "features": items}
    return schema.model_copy(update=changes), sources.model_copy(update={"others": {}})


def rows_of(tables: Tables, schema: Schema, users: pa.Array | None) -> np.ndarray[Any, Any]:
    """Return the rows of the users table of some users, ascending; None: of all.

    Raises:
        DataError: one is in no table, or the ids are of another type.
    """
    known = tables.users.column(schema.user_key).combine_chunks()
    if users is None:
        return np.arange(len(known))
    try:
        rows = pc.index_in(users.cast(known.type), known)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"users are not of type {known.type} ({str(error).splitlines()[0]})",
            column=schema.user_key,
            remedy=f"give ids of type {known.type}",
        ) from None
    if rows.null_count:
        stranger = users.filter(rows.is_null())[0].as_py()
        raise DataError(
            f"user {stranger!r} ({rows.null_count} users in all) is in neither the interactions "
            "nor the users table",
            column=schema.user_key,
        )
    return distinct(np.asarray(rows, np.int64))


def _answers(scorer: Scorer, filters: Filters, shard: Shard) -> pa.Table:
    return answers_to(scorer, filters, shard.read(), shard.origin)
