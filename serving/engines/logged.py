"""The users of an interaction log as requests, by the rules that training read its log with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.errors import ConfigError, DataError
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.sessions import sessions_of
from recsys.features.kinds.categorical import CategoricalFeature
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.pipeline.requests import whole_requests
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.requests.table import request_table
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Sources
from recsys.serving.engines.relations import Windows, asked_relations, without_relations
from recsys.serving.recommend.scorer import Scorer


@dataclass(frozen=True)
class LoggedUsers:
    """The users of a log, and of the table of users where there is one.

    requests: of user rows (B,) of `tables.users`: key, attributes, history, as requests have them.
    relations_fingerprint: a hash of the files of relations that windows of requests are over.
    """

    tables: Tables
    requests: Callable[[NDArray[np.int64]], pa.Table]
    relations_fingerprint: str = ""


def logged_users(scorer: Scorer, sources: Sources, *, is_piece: bool = False) -> LoggedUsers:
    """Read and check a log by the rules that training used.

    Args:
        scorer: of the model, whose schema and policies say how.
        sources: the log, and tables of users.
        is_piece: whether they are all rows of some users alone: of one item, or without a row.

    Raises:
        ConfigError: the model reads a table of users, and there is none.
        DataError: a rule is broken.
    """
    schema = schema_for_log(scorer)
    if not _reads_features(scorer):
        schema, sources = _of_ids_alone(schema, sources)
    open_table(sources.interactions, "interactions")  # what is not there is said first
    if schema.users is not None and sources.users is None:
        names = ", ".join(feature.name for feature in schema.features_of("users"))
        raise ConfigError(
            f"the model reads {names} of a users table: give it as users (--users PATH)"
        )
    policies = scorer.policies.model_copy(update={"unknown_items": "keep"})
    if is_piece and scorer.schema.relations:
        raise ConfigError(
            "the model reads windows over other tables, which are not computed for a part of the "
            "users: score on this machine (--engine local)"
        )
    asked = asked_relations(scorer, sources)
    sources = without_relations(scorer.schema, schema, sources)
    tables = read_tables(schema, sources, policies, is_piece=is_piece)
    events, is_pipeline = tables.events, scorer.description.has_sources
    newest = 0 if asked is None else int(events.time.max())
    windows = Windows(asked, newest, of_candidates=is_pipeline)
    if is_pipeline:
        every = np.ones(len(events), bool)
        return LoggedUsers(
            tables,
            lambda rows: windows.beside(whole_requests(schema, tables, every, rows)),
            windows.fingerprint,
        )
    histories = Histories.build(
        events.user_row, events.item_row, events.time, tables.users.num_rows
    )
    sessions = None
    if scorer.sessions is not None:
        sessions = sessions_of(schema, events, scorer.sessions)
    return LoggedUsers(
        tables,
        lambda rows: windows.beside(
            request_table(schema, tables, histories, rows, sessions=sessions)
        ),
        windows.fingerprint,
    )


def schema_for_log(scorer: Scorer) -> Schema:
    """Return the schema of what scoring reads of a log, and of tables of users."""
    has_steps = scorer.sessions is not None or scorer.description.has_sources
    return _schema_for_log(scorer.schema, steps=has_steps, windows=scorer.sessions is not None)


def _schema_for_log(schema: Schema, *, steps: bool, windows: bool) -> Schema:
    """The schema of what scoring reads of a log.

    Without the catalogue, which the bundle holds: items are known by their ids. windows: whether
    those before each step are read.
    """
    of_events = schema.features_of("interactions") if steps else ()
    if not windows:
        of_events = tuple(one for one in of_events if not isinstance(one, RelationFeature))
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
            "relations": schema.relations if windows else {},
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
