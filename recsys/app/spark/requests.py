"""Requests built from a log of any size: Spark groups it by user, the engine reads each group."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from recsys.app.arguments import Count, checked
from recsys.app.batch_function import BatchFunction, batch_function
from recsys.app.models import Reference
from recsys.app.spark.columns import arrow_schema, holdable, spark_schema
from recsys.app.spark.session import need_spark
from recsys.app.spark.shipping import received, shipped
from recsys.core.errors import ConfigError, DataError
from recsys.features.requests.steps import step_columns
from recsys.features.requests.table import HISTORY, SEEN
from recsys.features.schema import Schema
from recsys.features.tables.id_forms import IdForm, written_column
from recsys.features.tables.ledger import is_text
from recsys.features.tables.rows import RowRoles
from recsys.serving.engines.logged import schema_for_log
from recsys.serving.engines.pieces import (
    KEY,
    LOG,
    USERS,
    as_declared,
    requests_of,
    requests_of_pieces,
)
from recsys.serving.recommend.scorer import Scorer

_PLACE, _SAMPLE = "_recsys_place", 200


@checked
def requests_from(
    log: Any,
    model: Reference,
    *,
    users: Any = None,
    others: Mapping[str, Any] | None = None,
    position: Any = None,
    piece_rows: Count = 500_000,
    settings: Mapping[str, Any] | None = None,
    ship: bool | None = None,
) -> Any:
    """Return a data frame with a request for each user: the histories of `recsys.score`.

    The log is partitioned and sorted by user, and each partition is read in pieces that hold whole
    users, by the rules of the training: conditions, ids, times, types of events, what takes what
    back, repeats, the last session.

    Args:
        log: Spark data frame of the interactions, with the columns of the training's log.
        model: of lists; see `recsys.load`.
        users: data frame of users, where the model reads one; those without a row of the log have
            a request with an empty history.
        others: data frames of side tables of users, by name.
        position: the column, or expression, by which rows of one user and instant are in order;
            None: as the data frame has them, which for several files is in no certain order.
        piece_rows: rows that a worker holds at once, and those of one user besides.
        settings: other policies than in training.
        ship: send the bundle to the workers; None: unless they are on this machine.

    Raises:
        UserError: the tables do not fit the model.
    """
    need_spark()
    from pyspark.sql import functions

    function = batch_function(model, settings=settings)
    scorer = function.opened().scorer
    if not isinstance(scorer, Scorer):
        raise ConfigError("requests_from: the model is a ranker and scores rows: use predict")
    schema = schema_for_log(scorer)
    if schema.relations:
        names = ", ".join(schema.relations)
        raise ConfigError(
            f"requests_from: the model reads further tables ({names}), which are not grouped by "
            "user: build the requests with `recsys score --engine local`"
        )
    place = functions.monotonically_increasing_id() if position is None else position
    placed = log.withColumn(_PLACE, functions.col(place) if isinstance(place, str) else place)
    frames = _frames(schema, {LOG: placed, USERS: users, **(others or {})})
    asked = _columns_of_requests(scorer, schema, frames)
    rows = _rows_by_user(schema, frames)
    task = _Task(
        replace(function, threads=1), asked, piece_rows, shipped(log.sparkSession, function, ship)
    )
    return rows.mapInArrow(task, spark_schema(asked))


@dataclass(frozen=True)
class _Task:
    """What a worker runs for each partition of sorted rows."""

    function: BatchFunction
    asked: pa.Schema
    piece_rows: int
    archive: str | None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer = received(self.function, self.archive).opened().scorer
        assert isinstance(scorer, Scorer)
        plain = (batch.drop_columns([_PLACE]) for batch in batches)
        return requests_of_pieces(scorer, plain, self.asked, self.piece_rows)


@dataclass(frozen=True)
class _Written:
    """Ids of a column as the schema writes them, of each batch of a frame."""

    key: str
    form: IdForm
    schema: pa.Schema

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            table = pa.Table.from_batches([batch])
            yield from written_column(table, self.key, self.form).cast(self.schema).to_batches()


def _frames(schema: Schema, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables that are given with the columns that are read.

    Raises:
        ConfigError: the schema has no such table.
        DataError: the column of the users is missing.
    """
    known = (LOG, USERS, *schema.others)
    found = {}
    for name, frame in given.items():
        if frame is None:
            continue
        if name not in known:
            raise ConfigError(f"others: the model has no table '{name}' of users")
        key = _key_of(schema, name)
        if key not in frame.columns:
            raise DataError(
                f"the data frame has no such column; it has {', '.join(frame.columns)}",
                file=name,
                column=key,
            )
        read = _read_of(schema, name)
        found[name] = frame.select(*(f"`{one}`" for one in frame.columns if one in read))
    return found


def _read_of(schema: Schema, name: str) -> list[str]:
    """Return the columns that are read of a table."""
    if name == LOG:
        return [*RowRoles.of_log(schema, None).columns, _PLACE]
    features = [one for one in schema.column_features if one.table == name]
    return [_key_of(schema, name), *(column for one in features for column in one.columns)]


def _key_of(schema: Schema, name: str) -> str:
    """Return the column of a table that says the user."""
    if name in schema.others:
        return str(schema.others[name].key)
    return str(schema.interactions.user if name == LOG else schema.user_key)


def _rows_by_user(schema: Schema, frames: Mapping[str, Any]) -> Any:
    """Return all tables as one frame, partitioned and sorted by user, then place."""
    from pyspark.sql import functions

    parts, kinds = [], {}
    form = schema.ids.users
    for name, frame in frames.items():
        key = _key_of(schema, name)
        kinds[name] = is_text(arrow_schema(frame.select(f"`{key}`")).field(0).type)
        read = [one for one in frame.columns if one != _PLACE]
        whole = functions.struct(*(functions.col(f"`{one}`") for one in read))
        own = functions.col(f"`{key}`").cast("string" if kinds[name] or form else "bigint")
        chosen = [own.alias(KEY), whole.alias(name)]
        chosen += [functions.col(_PLACE)] if name == LOG else []
        parts.append(as_written(frame.select(*chosen), KEY, form))
    if len(set(kinds.values())) > 1 and schema.ids.users is None:
        texts = [name for name, is_of_text in kinds.items() if is_of_text]
        raise DataError(
            f"the users of {texts[0]} are text, those of another table whole numbers",
            file=texts[0],
            column=_key_of(schema, texts[0]),
            remedy="cast one of the columns",
        )
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.unionByName(part, allowMissingColumns=True)
    return whole.repartition(KEY).sortWithinPartitions(KEY, _PLACE)


def as_written(frame: Any, key: str, form: IdForm | None) -> Any:
    """Return a frame whose ids are as the schema writes them: one user's are all the same."""
    if form is None:
        return frame
    schema = holdable(arrow_schema(frame))
    place = schema.get_field_index(key)
    schema = schema.set(place, pa.field(key, pa.string()))
    return frame.mapInArrow(_Written(key, form, schema), spark_schema(schema))


def _columns_of_requests(scorer: Scorer, schema: Schema, frames: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of the requests, found on the first rows of the tables."""
    tables = {name: frame.drop(_PLACE).limit(_SAMPLE).toArrow() for name, frame in frames.items()}
    tables = {name: _plain_types(table) for name, table in tables.items()}
    found = requests_of(scorer, tables).schema
    roles, log = schema.interactions, tables[LOG].schema
    users = _id_kind(log.field(roles.user).type, schema.ids.users)
    items = pa.list_(_id_kind(log.field(roles.item).type, schema.ids.items))
    sure = {schema.user_key: users, HISTORY: items, SEEN: items}
    given = {field.name: field.type for table in tables.values() for field in table.schema}
    given |= {name: pa.list_(log.field(one).type) for one, name in step_columns(schema).items()}
    fields = []
    for one in found:
        says = not pa.types.is_null(getattr(one.type, "value_type", one.type))
        fields.append(pa.field(one.name, sure.get(one.name, one.type if says else given[one.name])))
    return holdable(pa.schema(fields))


def _plain_types(table: pa.Table) -> pa.Table:
    return as_declared(table, holdable(table.schema))


def _id_kind(kind: pa.DataType, form: IdForm | None) -> pa.DataType:
    return pa.string() if form is not None or is_text(kind) else pa.int64()
