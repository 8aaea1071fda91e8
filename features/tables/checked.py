"""Reads and checks the data: files in, checked tables out, every dropped row accounted for.

Items and users become one sorted table each; the log becomes arrays of row numbers into them,
sorted by user and time. Nothing is guessed: what a row that breaks a rule becomes is a policy.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.order import stable_order
from recsys.features.relations.columns import with_relations
from recsys.features.relations.facts import Key
from recsys.features.relations.linking import RelationRows
from recsys.features.relations.reading import read_relations
from recsys.features.schema import Schema
from recsys.features.tables.attributes import (
    Attributes,
    joined,
    read_attributes,
    sorted_union,
    without_duplicates,
)
from recsys.features.tables.ids import Ids, settle_ids
from recsys.features.tables.ledger import Drop
from recsys.features.tables.log import Log, read_log, take_rows
from recsys.features.tables.log_order import columns_in_order
from recsys.features.tables.opening import open_tables
from recsys.features.tables.reading import TableFiles, fingerprint
from recsys.features.tables.sources import KEEP, Policies, Sources
from recsys.features.tables.times import latest_seconds
from recsys.features.tables.undone import NEVER, taken_back, undoing_drops, undone_drop
from recsys.features.tables.unknown_ids import Side, without_unknown


@dataclass(frozen=True, eq=False)
class Events:
    """E interactions, sorted by user_row, then time, then position in the files.

    user_row (E,) int32 into the users; item_row (E,) int32 into the items; time (E,) int64
    microseconds since 1970 UTC, the order value, or 0..E-1 in file order where neither is
    declared; weight (E,) float32; row (E,) int64, row number over the source files, from 0;
    split (E,) int8, 0 train, 1 validation, 2 test, from the split column; context: E rows;
    label (E,) float32, 0 or 1, where the schema declares one; outcomes (E, K) float32, 0, 1 or NaN
    where unknown, where the schema declares some; session (E,) int32, the same number for the rows
    of one session id, where the schema names a session column; type (E,) int8, place among
    `schema.interactions.events.names`, where types are declared; target (E,) bool, whether the row
    is asked for, where the schema says which are; undone (E,) int64, when a later row took it back,
    in the unit of `time`, `NEVER`: none did; None where such rows are gone.
    """

    user_row: NDArray[np.int32]
    item_row: NDArray[np.int32]
    time: NDArray[np.int64]
    weight: NDArray[np.float32]
    row: NDArray[np.int64]
    split: NDArray[np.int8] | None
    context: pa.Table
    label: NDArray[np.float32] | None = None
    outcomes: NDArray[np.float32] | None = None
    session: NDArray[np.int32] | None = None
    type: NDArray[np.int8] | None = None
    target: NDArray[np.bool_] | None = None
    undone: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user_row)

    def take(self, rows: NDArray[np.int64]) -> "Events":
        """Return the events `rows` (M,) in that order."""
        return Events(
            self.user_row[rows],
            self.item_row[rows],
            self.time[rows],
            self.weight[rows],
            self.row[rows],
            None if self.split is None else self.split[rows],
            take_rows(self.context, rows),
            None if self.label is None else self.label[rows],
            None if self.outcomes is None else self.outcomes[rows],
            None if self.session is None else self.session[rows],
            None if self.type is None else self.type[rows],
            None if self.target is None else self.target[rows],
            None if self.undone is None else self.undone[rows],
        )


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything a schema declares, checked.

    items, users: one row an item (user), ascending by key, side tables joined in. drops: what
    policies left out or changed. fingerprint: sha256 of the bytes of all files. matches: a sentence
    a relation, on how many of its rows are of a user or an item that is known.
    """

    items: pa.Table
    users: pa.Table
    events: Events
    drops: tuple[Drop, ...]
    fingerprint: str
    matches: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    """What was recognised of the files that a person may want to know."""


def read_tables(
    schema: Schema,
    sources: Sources,
    policies: Policies,
    *,
    split_column: str | None = None,
    now: datetime | None = None,
    trained: bool = False,
    to_part: bool = False,
    is_piece: bool = False,
) -> Tables:
    """Read and check all tables.

    Args:
        schema: roles and features.
        sources: where the files are.
        policies: what to do with rows that break a rule.
        split_column: column of the interactions that says train, validation or test.
        now: the clock, for `policies.latest_time: now`.
        trained: the policies are those of a trained model; no message says to set one.
        to_part: keep rows that later ones take back, for `recsys.features.dataset.dataset.parted`.
        is_piece: these are all rows of some users alone, which need teach nothing by themselves.

    Raises:
        NotFoundError: a path does not exist, or a glob matches nothing.
        DataError: a table is not as declared; file, column, rows and remedy are named.
        ConfigError: tables and sources do not go together.
    """
    files, latest = open_tables(schema, sources, is_piece=is_piece), latest_seconds(policies, now)
    how: dict[str, Any] = {"latest": latest, "trained": trained}
    log, drops = read_log(files["interactions"], schema, policies, split_column=split_column, **how)
    others = _read_others(schema, files, policies, trained=trained)
    relations = read_relations(schema, files, policies, **how)
    ids, others, relations = _settled(schema, log, others, relations, policies)
    log = replace(log, items=ids["items"], users=ids["users"])
    if log.sessions is not None:
        log = replace(log, sessions=settle_ids([log.sessions], policies)[0])
    log, drops = _thinned(log, schema, others, policies, drops)
    items, item_row = _side("items", schema, others, log.items)
    users, user_row = _side("users", schema, others, log.users)
    for attributes in others.values():
        drops += attributes.ledger.settle()
    if not is_piece:
        _check_worth(log, items, files["interactions"])
    keys: dict[Key, pa.ChunkedArray] = {
        "user": users.column(schema.user_key),
        "item": items.column(schema.item_key),
    }
    columns = log.columns()
    del log, ids
    events = _events(columns, schema, user_row, item_row)
    events, undoing = _undone(events, schema, files["interactions"])
    events, matches, further = with_relations(events, schema, relations, keys)
    dropped = (*drops, *undoing, *further)
    said = tuple(one for table in files.values() for one in table.said)
    tables = Tables(items, users, events, dropped, fingerprint(files.values()), matches, said)
    return tables if to_part else without_undone(schema, tables, is_piece=is_piece)


def _thinned(
    log: Log,
    schema: Schema,
    others: dict[str, Attributes],
    policies: Policies,
    drops: list[Drop],
) -> tuple[Log, list[Drop]]:
    """Return the log without unknown keys and repeats, and all `drops`; thin out `others`."""
    drops = drops + log.ledger.settle()
    for name, attributes in others.items():
        others[name] = without_duplicates(attributes, policies)
        drops += others[name].ledger.settle()
    log = without_unknown(log, schema, others, policies)
    log = _without_repeats(log, schema, policies)
    return log, drops + log.ledger.settle()


def without_undone(
    schema: Schema, tables: Tables, gone: NDArray[np.bool_] | None = None, *, is_piece: bool = False
) -> Tables:
    """Return the tables without the rows that later ones took back.

    Args:
        schema: of the tables.
        tables: what `read_tables` gave with `to_part`.
        gone: (E,) which of these rows leave; None: all.
        is_piece: whether none need be left.

    Raises:
        DataError: no row would be left.
    """
    events, role = tables.events, schema.interactions.events
    if events.undone is None or role is None:
        return tables
    undone = events.undone != NEVER
    leave = undone if gone is None else undone & gone
    left = replace(events.take(np.flatnonzero(~leave)), undone=None)
    if not len(left) and not is_piece:
        raise DataError("no interaction is left: later rows take all back", column=role.column)
    if not leave.any():
        return replace(tables, events=left)
    drop = undone_drop(events.row[leave], int((undone & ~leave).sum()), role)
    return replace(tables, events=left, drops=(*tables.drops, drop))


def source_fingerprint(schema: Schema, sources: Sources) -> str:
    """Return `Tables.fingerprint` of these files without reading the tables.

    Raises:
        NotFoundError: a path does not exist, or a glob matches nothing.
        ConfigError: tables and sources do not go together.
    """
    return fingerprint(open_tables(schema, sources).values())


def _read_others(
    schema: Schema, files: dict[str, TableFiles], policies: Policies, *, trained: bool
) -> dict[str, Attributes]:
    others: dict[str, Attributes] = {}
    for name, table in files.items():
        if name == "interactions" or name in schema.relations:
            continue
        if name in schema.others:
            key, title = schema.others[name].key, None
        elif name == "items":
            key, title = schema.item_key, schema.items.title if schema.items else None
        else:
            key, title = schema.user_key, None
        features = [feature for feature in schema.column_features if feature.table == name]
        others[name] = read_attributes(
            table,
            key,
            features,
            policies,
            form=schema.form_of(_joins(schema, name) or name),
            title=title,
            trained=trained,
            written=schema.number_texts,
        )
        # What is broken on its own is said before anything is compared.
        others[name].ledger.check()
    return others


def _settled(
    schema: Schema,
    log: Log,
    others: dict[str, Attributes],
    relations: dict[str, RelationRows],
    policies: Policies,
) -> tuple[dict[str, Ids], dict[str, Attributes], dict[str, RelationRows]]:
    """Return the ids of the log by side, and all tables, with one type for the ids of a side."""
    ids = {"items": log.items, "users": log.users}
    others, relations = dict(others), dict(relations)
    sides: list[tuple[Side, Key]] = [("items", "item"), ("users", "user")]
    for side, key in sides:
        members = [name for name in others if name == side or _joins(schema, name) == side]
        related = [name for name, rows in relations.items() if key in rows.keys]
        further = [others[name].ids for name in members]
        further += [relations[name].ids[key] for name in related]
        ids[side], *settled = settle_ids([ids[side], *further], policies, side)
        for name, one in zip(members, settled, strict=False):
            others[name] = replace(others[name], ids=one)
        for name, one in zip(related, settled[len(members) :], strict=True):
            relations[name] = relations[name].with_ids(key, one)
    return ids, others, relations


def _joins(schema: Schema, name: str) -> str | None:
    return schema.others[name].joins if name in schema.others else None


def _without_repeats(log: Log, schema: Schema, policies: Policies) -> Log:
    """Drop or refuse the same user, item and time twice."""
    if policies.duplicate_events == KEEP or len(log.rows) == 0:
        return log
    has_clock = schema.interactions.time is not None or schema.interactions.order is not None
    clock = log.clock if has_clock else np.zeros(len(log.rows), np.int64)
    order = stable_order(log.users.codes, log.items.codes, clock)
    same = np.ones(len(order) - 1, bool)
    for column in (clock, log.items.codes, log.users.codes):
        same &= column[order[1:]] == column[order[:-1]]
    repeated = np.zeros(len(order), bool)
    repeated[order[1:][same]] = True
    what = "user, item and time" if has_clock else "user and item"
    log.ledger.note(
        log.items.column,
        f"the same {what} as an earlier row",
        log.rows[repeated],
        remedy="remove the repeats from the source",
        rule=policies.rule("duplicate_events", "keep or drop"),
    )
    return log.keep(~repeated)


def _side(
    side: Side, schema: Schema, others: dict[str, Attributes], ids: Ids
) -> tuple[pa.Table, NDArray[np.int32]]:
    """Return the table of one side, and the row of each distinct id of the log, (D,) int32."""
    key = schema.item_key if side == "items" else schema.user_key
    used = ids.used()
    table = None
    if side in others:
        sides = {name: one for name, one in others.items() if _joins(schema, name) == side}
        table = joined(others[side], key, sides)
    table = sorted_union(table, key, used)
    rows = pc.index_in(ids.distinct, table.column(key).combine_chunks()).fill_null(-1)
    return table, np.asarray(rows).astype(np.int32)


def _check_worth(log: Log, items: pa.Table, files: TableFiles) -> None:
    """Refuse what nothing can be learnt from."""
    if len(log.rows) == 0:
        raise DataError(
            "no interaction is left after the policies",
            file=files.paths[0],
            remedy="see policies.unknown_items and policies.unknown_users",
        )
    if items.num_rows < 2 or len(log.items.used()) < 2:
        raise DataError(
            "the interactions are all of one item",
            file=log.items.files,
            column=log.items.column,
            remedy="at least two are needed to choose from",
        )


def _events(
    columns: dict[str, Any],
    schema: Schema,
    user_row: NDArray[np.int32],
    item_row: NDArray[np.int32],
) -> Events:
    roles = schema.interactions
    has_clock = roles.time is not None or roles.order is not None
    return Events(**columns_in_order(columns, user_row, item_row, has_clock=has_clock))


def _undone(events: Events, schema: Schema, files: TableFiles) -> tuple[Events, list[Drop]]:
    """Return the events without those that take others back, and what became of these."""
    role = schema.interactions.events
    if role is None or not role.undo:
        return events, []
    assert events.type is not None
    by = taken_back(events.user_row, events.item_row, events.type, role)
    undone = np.where(by >= 0, events.time[by], NEVER)
    drops = undoing_drops(events.type, by, events.row, role, files)
    stays = np.flatnonzero(events.type < len(role.weights))
    return replace(events, undone=undone).take(stays), drops
