"""Requests: tables of users to recommend for, each with a history, as batch scoring reads them.

A request table has the user key, `history` (list of item ids, oldest first), optionally `seen`
(items to leave out; the history where absent), and any user attribute or context column; an
absent attribute is null. For a model of sessions the history is that of one session, and columns
next to it describe its steps (`recsys.features.requests.steps`); where they say when each step was
and a pause ends a session, what comes before the last pause is cut off.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.features.dataset.dataset import are_had
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.sessions import Sessions
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.kinds.convert import columns_of
from recsys.features.requests.item_lookup import rows_of_items
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.ranked import RankedRequests
from recsys.features.requests.steps import (
    TIMES,
    check_step_lists,
    encode_steps,
    last_session,
    refuse_unknown_columns,
    since_the_last_pause,
    step_columns,
    step_lists,
    step_times,
)
from recsys.features.requests.values import as_read, item_ids_as, kinds_of, one_array
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables
from recsys.features.tables.id_forms import written_column, written_like
from recsys.features.tables.ledger import Ledger, is_list, is_text
from recsys.features.tables.plain_values import plain, plain_table
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.rows import RowReader, RowRoles, forms_of_roles
from recsys.features.tables.sources import Policies

HISTORY, SEEN = "history", "seen"
_UNNAMED = RequestOrigin()


@dataclass(frozen=True)
class Requests:
    """B requests, encoded.

    block: user and context features, for a model of sessions those of the users alone. history:
    for such a model the steps.
    num_events (B,) int64, items in the whole history, of which the model may see the last alone.
    unknown_items: ids in histories that the catalogue lacks. first_unknown: the first of them.
    of_sources: of a pipeline, the same requests as each of its sources reads them. for_ranker: the
    users as its ranker reads them, where that is a model of rows.
    """

    user_ids: pa.Array
    block: FeatureBlock
    history: Jagged | History
    seen: Jagged
    num_events: Tensor
    unknown_items: int
    first_unknown: Any = None
    of_sources: tuple["Requests", ...] = ()
    for_ranker: RankedRequests | None = None

    def __len__(self) -> int:
        return len(self.user_ids)


def request_table(
    schema: Schema,
    tables: Tables,
    histories: Histories,
    users: NDArray[np.int64],
    *,
    sessions: Sessions | None = None,
) -> pa.Table:
    """Return the requests of user rows `users` (B,): key, attributes, whole history.

    With `sessions`, those of all events of `tables`, the history is that of the user's last session
    with all that is known of its steps, and `seen` is the whole history. Where the schema names the
    types of events by which an item is had (`interactions.events.seen`), `seen` is these alone.
    """
    seen = histories.last(users)
    ids = tables.items.column(schema.item_key).combine_chunks()
    requests = user_table(tables, users)
    had = had_by(schema, tables, users)
    if sessions is None:
        requests = requests.append_column(HISTORY, _id_lists(ids, seen))
        return requests if had is None else requests.append_column(SEEN, _id_lists(ids, had))
    numbers, lengths = last_session(sessions, tables.events, users)
    history = Jagged.of_lengths(tables.events.item_row[numbers], lengths)
    requests = requests.append_column(HISTORY, _id_lists(ids, history))
    requests = requests.append_column(SEEN, _id_lists(ids, seen if had is None else had))
    steps = step_lists(schema, tables.events, numbers, history.offsets.numpy())
    for name in steps.column_names:
        requests = requests.append_column(name, steps.column(name))
    return requests


def had_by(schema: Schema, tables: Tables, users: NDArray[np.int64]) -> Jagged | None:
    """Return the items that user rows `users` (B,) have had by `interactions.events.seen`.

    None: the schema does not say, and all items of the history are.
    """
    role, events = schema.interactions.events, tables.events
    if role is None or not role.seen:
        return None
    known = events.take(np.flatnonzero(are_had(schema, events)))
    number = tables.users.num_rows
    return Histories.build(known.user_row, known.item_row, known.time, number).last(users)


def _id_lists(ids: pa.Array, rows: Jagged) -> pa.Array:
    """Rows of the catalogue as lists of ids."""
    values = ids.take(pa.array(rows.values.numpy()))
    return pa.LargeListArray.from_arrays(pa.array(rows.offsets.numpy()), values)


def ids_sha256(item_ids: pa.Array) -> str:
    """Return a hash of the catalogue's ids in order: which item each row of an index is."""
    digest = hashlib.sha256(str(item_ids.type).encode())
    for value in item_ids.to_pylist():
        digest.update(f"{value}\n".encode())
    return digest.hexdigest()


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as their values: requests go to the server of the model."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def encode_requests(
    encoder: FeatureEncoder,
    item_ids: pa.Array,
    table: pa.Table,
    *,
    history_length: int,
    steps: bool = False,
    inactivity_minutes: float | None = None,
    policies: Policies,
    origin: RequestOrigin = _UNNAMED,
) -> Requests:
    """Return `table` as tensors; its columns are checked as those of a log are.

    Args:
        encoder: of the trained model.
        item_ids: (n_items,) the model's catalogue, ascending.
        table: the requests.
        policies: those of the training.
        history_length: how many events the model reads, the last ones.
        steps: for a model of sessions: the history as steps, users alone in the block.
        inactivity_minutes: of such a model: a longer pause between two steps whose times are given
            ends a session, and what comes before the last one is no part of the history.
        origin: of the requests, for messages.

    Raises:
        DataError: the user key or the history is missing, null or of the wrong type; a column of
            its steps does not go with the history.
    """
    table = _as_read(encoder, plain_table(table), origin)
    users = table.column(encoder.schema.user_key).combine_chunks()
    known_of = _attributes(encoder.schema, table, policies, origin, steps=steps)
    rows, owner, values = item_rows(table, HISTORY, item_ids, origin, encoder.schema)
    in_catalogue = rows >= 0
    known = np.flatnonzero(in_catalogue)
    seen = grouped(rows[known], owner[known], table.num_rows)
    if SEEN in table.column_names:
        seen_rows, seen_owner, _ = item_rows(table, SEEN, item_ids, origin, encoder.schema)
        seen = grouped(seen_rows[seen_rows >= 0], seen_owner[seen_rows >= 0], table.num_rows)
    with origin.named(_sources(encoder.schema, "users"), np.arange(table.num_rows)):
        block = encoder.encode("users", known_of)
    times = None
    if steps:
        refuse_unknown_columns(encoder.schema, table.column_names, origin)
        times = step_times(encoder.schema, table, origin)
        if times is not None and inactivity_minutes is not None:
            current = since_the_last_pause(times, owner, inactivity_minutes)
            known = np.flatnonzero(in_catalogue & current)
    history = grouped(rows[known], owner[known], table.num_rows)
    last = known[_among_last(history, history_length)]
    shown: Jagged | History = grouped(rows[last], owner[last], table.num_rows)
    if steps:
        shown = encode_steps(encoder, table, rows[last], last, times, policies, origin)
    else:
        check_step_lists(encoder.schema, table, origin)
        with origin.named(_sources(encoder.schema, "interactions"), np.arange(table.num_rows)):
            block = block.beside(encoder.encode("interactions", known_of))
    unknown = np.flatnonzero(~in_catalogue)
    first = values[int(unknown[0])].as_py() if len(unknown) else None
    return Requests(users, block, shown, seen, history.lengths(), len(unknown), first)


def encode_users(
    encoder: FeatureEncoder,
    table: pa.Table,
    policies: Policies,
    origin: RequestOrigin = _UNNAMED,
) -> FeatureBlock:
    """Return what is known of the user of each request, encoded; an absent attribute is null.

    Raises:
        DataError: a value is not as the model needs it.
    """
    table = written_column(table, encoder.schema.user_key, encoder.schema.ids.users)
    table = as_read(table, _kinds(encoder), origin, [encoder.schema.user_key])
    known_of = _attributes(encoder.schema, table, policies, origin, steps=True)
    with origin.named(_sources(encoder.schema, "users"), np.arange(table.num_rows)):
        return encoder.encode("users", known_of)


def _as_read(encoder: FeatureEncoder, table: pa.Table, origin: RequestOrigin) -> pa.Table:
    """Return requests, which have user key and history, in the types that the model reads."""
    require_columns(encoder.schema, origin.files(table.column_names))
    table = written_column(table, encoder.schema.user_key, encoder.schema.ids.users)
    return as_read(table, _kinds(encoder), origin, [encoder.schema.user_key])


def _kinds(encoder: FeatureEncoder) -> dict[str, pa.DataType]:
    """Return the columns of users, of context and of steps with the types that the model reads."""
    schema = encoder.schema
    of_users = kinds_of(schema.features_of("users"), encoder)
    of_events = kinds_of(schema.features_of("interactions"), encoder)
    called = step_columns(schema)
    found = {called[name]: pa.list_(kind) for name, kind in of_events.items() if name in called}
    if schema.interactions.time is not None and schema.interactions.time.unit != "datetime":
        found[TIMES] = pa.list_(pa.int64())
    return {**found, **of_events, **of_users}


def user_table(tables: Tables, users: NDArray[np.int64]) -> pa.Table:
    """Return what is known of user rows `users` (B,): keys and attributes."""
    return _plain(tables.users.take(pa.array(users)))


def require_columns(schema: Schema, files: TableFiles, remedy: str = "") -> None:
    """Refuse requests without user key or history.

    Args:
        schema: of the trained model.
        files: where the requests are.
        remedy: what else can be done.

    Raises:
        DataError: one is missing; the nearest column is named.
    """
    key = schema.user_key
    needs = (
        f"requests need '{key}' and '{HISTORY}' (a list of item ids, oldest first, empty for a "
        "new user)"
    )
    needs = f"{needs}; {remedy}" if remedy else needs
    files.require((key, HISTORY), {key: needs, HISTORY: needs})


def _attributes(
    schema: Schema, table: pa.Table, policies: Policies, origin: RequestOrigin, *, steps: bool
) -> pa.Table:
    """Return what is known of the user of each request, and of the request where it has no steps.

    Raises:
        DataError: a value is not as the model needs it.
    """
    key = schema.user_key
    features = [
        *schema.features_of("users"),
        *(() if steps else schema.features_of("interactions")),
    ]
    features = [feature for feature in features if feature.source_column != key]
    for name in columns_of(features):
        if name not in table.column_names:  # is not known
            table = table.append_column(name, pa.nulls(table.num_rows))
    files = origin.files(table.column_names)
    ledger = Ledger(files, trained=True)
    roles = RowRoles(
        ids={"user": key},
        id_forms=forms_of_roles(schema),
        features=features,
        written=schema.number_texts,
    )
    reader = RowReader(files, roles, policies.model_copy(update={"bad_ids": "error"}), ledger)
    numbers = origin.first_row + np.arange(table.num_rows)
    rows = reader.read(Batch(table, numbers))
    ledger.check()
    return pa.table({key: rows.ids["user"], **rows.columns})


def _sources(schema: Schema, side: Literal["users", "interactions"]) -> dict[str, str]:
    """Return the columns that features of `side` read, each under its own name."""
    return {name: name for name in columns_of(schema.features_of(side))}


def item_rows(
    table: pa.Table,
    name: str,
    item_ids: pa.Array,
    origin: RequestOrigin,
    schema: Schema,
) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """Return lists of item ids as catalogue rows, (T,), -1 for what it lacks; requests; the ids.

    `schema` says how the ids are written.
    """
    lists = one_array(table.column(name))
    kind = lists.type
    if pa.types.is_null(kind):
        lists, kind = lists.cast(pa.large_list(item_ids.type)), pa.large_list(item_ids.type)
    if not is_list(kind):
        valid = np.flatnonzero(np.asarray(lists.is_valid()))
        raise origin.error(
            f"{kind}, where a list of item ids is expected",
            name,
            int(valid[0]) if len(valid) else None,
            remedy="write a column of lists, as in ['a', 'b']",
        )
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    values = plain(lists.flatten())
    with suppress(pa.ArrowInvalid):  # what is no id is refused below
        values = written_like(values, schema.ids.items, item_ids.type)
    if is_text(item_ids.type) and not (is_text(values.type) or pa.types.is_null(values.type)):
        raise origin.error(
            f"holds {values.type} ids, the catalogue {item_ids.type} ids",
            name,
            int(owner[0]) if len(owner) else None,
            remedy=f"cast them to {item_ids.type}",
        )

    def refuse(at: int, what: str) -> None:
        raise origin.error(
            f"{values[at].as_py()!r}, where {what} is expected: the catalogue has {item_ids.type} "
            "ids",
            name,
            int(owner[at]),
            remedy="correct the ids",
        )

    rows = rows_of_items(item_ids_as(values, item_ids.type, refuse), item_ids)
    return rows, owner, values


def grouped(values: NDArray[np.int64], owner: NDArray[np.int64], num_requests: int) -> Jagged:
    """Return `values` (T,) by their request `owner` (T,), ascending."""
    return Jagged.of_lengths(values, np.bincount(owner, minlength=num_requests))


def _among_last(jagged: Jagged, length: int) -> NDArray[np.bool_]:
    """Return which values are among the last `length` of their row."""
    ends = torch.repeat_interleave(jagged.offsets[1:], jagged.lengths())
    return (ends - torch.arange(len(jagged.values)) <= length).numpy()
