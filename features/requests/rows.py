"""Rows to be scored, encoded for a ranker: checked as training checks them, and named where wrong.

A row has the context columns of the request. What is known of its user and its item comes from
tables of attributes, joined by the keys, or, where no table is given, from columns of the row
itself. Every row is encoded: nothing is dropped, whatever the policies say of a log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.core.remote.path import path_at
from recsys.data.batch import FeatureBlock
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.whole_rows import WholeRows
from recsys.features.kinds.convert import columns_of
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.relations.columns import relation_columns
from recsys.features.relations.facts import KEYS, KEYS_OF, Asked, Facts, Key
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.values import as_read, kinds_of
from recsys.features.schema import Schema
from recsys.features.tables.attributes import (
    Attributes,
    joined,
    read_attributes,
    without_duplicates,
)
from recsys.features.tables.ids import settle_ids
from recsys.features.tables.ledger import Cells, Ledger, is_text
from recsys.features.tables.reading import Batch, TableFiles, open_table, table_at
from recsys.features.tables.rows import IdRole, RowReader, RowRoles, Rows, forms_of_roles
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import latest_seconds

Side = Literal["users", "items"]
SIDES: tuple[Side, ...] = ("users", "items")
_ROLES: dict[Side, IdRole] = {"users": "user", "items": "item"}


@dataclass(frozen=True)
class _Raw:
    """Checked columns of one side; row n of the rows is row codes[n] of `columns` where given."""

    columns: dict[str, pa.Array]
    num_rows: int
    codes: NDArray[np.int64] | None = None


class RowEncoder:
    """Encodes rows in the order of `FeatureEncoder.ranking_layout`."""

    def __init__(
        self,
        encoder: FeatureEncoder,
        policies: Policies,
        attributes: Mapping[Side, pa.Table] | None = None,
        relations: Mapping[str, Facts] | None = None,
    ) -> None:
        """Get ready.

        Args:
            encoder: of the trained model.
            policies: those of the training; `unknown_items` and `unknown_users` say whether a
                key that `attributes` lack is an error, or a row without attributes.
            attributes: what `read_side` returned, by side; columns of the rows where absent.
            relations: by name, those that features are computed of; columns of the rows where
                absent.

        Raises:
            ConfigError: a feature is not read from a row alone, or a column name of the rows
                could be of the user and of the item.
        """
        self.encoder, self.schema, self.attributes = encoder, encoder.schema, attributes or {}
        self._policies = policies.model_copy(update={"bad_ids": "error", "bad_times": "error"})
        for feature in self.schema.past_features:
            raise ConfigError(
                f"feature '{feature.name}' is of kind {feature.kind}: it comes from the rows "
                "before a row, which a table of rows to score does not hold; train without it"
            )
        self._whole, self._relations = WholeRows(encoder), relations or {}
        self._roles = self._roles_of_rows()
        readers: dict[str, str] = {}
        for side in SIDES:
            for name in [] if side in self.attributes else self._columns_of(side):
                if readers.setdefault(name, side) != side:
                    raise ConfigError(
                        f"the column '{name}' is read of the user and of the item: give the "
                        "tables of users and items, so that rows need no such column"
                    )

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the log that say which row it is: user and item, where declared."""
        roles = self.schema.interactions
        return tuple(name for name in (roles.user, roles.item) if name)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the rows must have, each column once."""
        wanted = [name for side in SIDES for name in self._wanted_of(side)]
        wanted += columns_of(self._context)
        time = self._roles.time
        wanted += [*self._roles.ids.values(), *([time.column] if time else [])]
        return tuple(dict.fromkeys(wanted))

    @property
    def _context(self) -> list[Feature]:
        """Features of the request that are columns of the rows."""
        computed = self._computed
        return [one for one in self.schema.features_of("interactions") if one not in computed]

    @property
    def _computed(self) -> list[RelationFeature]:
        return [one for one in self.schema.relation_features if one.relation in self._relations]

    @property
    def types(self) -> pa.Schema:
        """The columns of rows and, as far as the encoder knows them, the types of their values."""
        found: dict[str, pa.DataType] = {}
        for side in (*SIDES, None):
            features = self._context if side is None else self.schema.features_of(side)
            kinds = {} if side in self.attributes else kinds_of(features, self.encoder)
            for column, kind in kinds.items():
                name = column if side is None else self._in_rows(side, column)
                found.setdefault(name, kind)
        return pa.schema(found)

    @property
    def _kinds(self) -> dict[str, pa.DataType]:
        """The types of columns, and of keys that are joined."""
        types = self.types
        found = dict(zip(types.names, types.types, strict=True))
        for side, table in self.attributes.items():
            found[self._key(side)] = table.schema.field(self._own_key(side)).type
        return found

    def encode(self, table: pa.Table, files: TableFiles, first_row: int = 0) -> FeatureBlock:
        """Return N encoded rows: users, context and items side by side, then what is derived.

        Args:
            table: the rows.
            files: the file they come from (`recsys.features.tables.reading.table_at`).
            first_row: number of the first of them in it, from 0.

        Raises:
            DataError: a column is missing, or a value is not as the model needs it; file,
                column and row are named.
        """
        self.require(files)
        table = self.as_read(table, files, first_row)
        ledger = Ledger(files, trained=True)
        latest = latest_seconds(self._policies) if self._roles.time else np.inf
        reader = RowReader(files, self._roles, self._policies, ledger, latest=latest)
        rows = reader.read(Batch(table, np.arange(first_row, first_row + table.num_rows)))
        reader.finish()
        ledger.check()  # so every row is there
        users, items = (self._side(side, rows, ledger) for side in SIDES)
        context = self._columns(self._context, rows, None) | self._of_relations(rows)
        ledger.check()
        path, numbers = files.paths[0], range(first_row + 1, first_row + 1 + table.num_rows)
        query = self._encoded("users", users, path, numbers)
        raw = _Raw(context, len(rows))
        query = query.beside(self._encoded("interactions", raw, path, numbers))
        return self._whole(query.beside(self._encoded("items", items, path, numbers)))

    def as_read(self, table: pa.Table, files: TableFiles, first_row: int = 0) -> pa.Table:
        """Return rows in the types that the model reads; arguments as for `encode`.

        Raises:
            DataError: a value cannot be read exactly; file, column and row are named.
        """
        return as_read(table, self._kinds, RequestOrigin(str(files.paths[0]), first_row), self.keys)

    def require(self, files: TableFiles) -> None:
        """Refuse a file that lacks a column.

        Raises:
            DataError: with the nearest column, and the option that would bring it.
        """
        remedies = {
            name: f"the model reads '{name}' of {side}: "
            + (
                "rows need the key to be joined"
                if side in self.attributes
                else f"write it into the rows, or give the table of {side}"
            )
            for side in SIDES
            for name in self._wanted_of(side)
        }
        for feature in self.schema.relation_features:
            if feature not in self._computed:
                option = f"--other {feature.relation}=PATH"
                remedies[feature.source_column] = (
                    f"give the relation that it is computed of ({option}), or write it into the "
                    "rows, null where it is not known"
                )
        files.require(self.columns, remedies)

    def _roles_of_rows(self) -> RowRoles:
        """Return what is read of the rows: keys, and features that no table of a side brings."""
        ids: dict[IdRole, str] = {}
        features = list(self._context)
        for side in SIDES:
            key = self._own_key(side)
            own = [] if side in self.attributes else self.schema.features_of(side)
            features += [one for one in own if one.source_column != key]
            if self._key(side) in self._wanted_of(side):
                ids[_ROLES[side]] = self._key(side)
        forms, written = forms_of_roles(self.schema), self.schema.number_texts
        if not self._computed:
            return RowRoles(ids=ids, id_forms=forms, features=features, written=written)
        keys = {key for one in self._computed for key in KEYS_OF[one.owner]}
        ids |= {role: self._key(side) for side, role in _ROLES.items() if role in keys}
        time = self.schema.interactions.time
        return RowRoles(ids=ids, id_forms=forms, features=features, time=time, written=written)

    def _of_relations(self, rows: Rows) -> dict[str, pa.Array]:
        """Return the columns that are computed, by the names that the encoder looks for."""
        if not self._computed or rows.clock is None:
            return {}
        ids: dict[Key, tuple[pa.Array, NDArray[np.int64]]] = {
            key: (rows.ids[key].dictionary, np.asarray(rows.ids[key].indices).astype(np.int64))
            for key in KEYS
            if key in rows.ids
        }
        asked = Asked(ids, rows.clock)
        return relation_columns(self._computed, self._relations, asked)

    def _wanted_of(self, side: Side) -> list[str]:
        if not self.schema.features_of(side):
            return []
        return [self._key(side)] if side in self.attributes else self._columns_of(side)

    def _columns_of(self, side: Side) -> list[str]:
        """Columns of the rows that hold the attributes of a side."""
        features = self.schema.features_of(side)
        return [self._in_rows(side, name) for name in columns_of(features)]

    def _key(self, side: Side) -> str:
        roles = self.schema.interactions
        return roles.user if side == "users" else roles.item

    def _own_key(self, side: Side) -> str:
        """The key in the table of a side."""
        return self.schema.user_key if side == "users" else self.schema.item_key

    def _in_rows(self, side: Side, column: str) -> str:
        return self._key(side) if column == self._own_key(side) else column

    def _side(self, side: Side, rows: Rows, ledger: Ledger) -> _Raw:
        features = self.schema.features_of(side)
        table = self.attributes.get(side)
        if table is None or not features:
            return _Raw(self._columns(features, rows, side), len(rows))
        ids, key = rows.ids[_ROLES[side]], self._own_key(side)
        column = Cells(self._key(side), ids.dictionary, rows.rows, ledger)
        at = _find(column, table.column(key).combine_chunks(), side)
        codes = np.asarray(ids.indices).astype(np.int64)
        self._note_unknown(side, Cells(self._key(side), ids, rows.rows, ledger), at)
        matched = table.take(at)
        found = {name: matched.column(name) for name in table.column_names if name != key}
        return _Raw({key: ids.dictionary, **found}, len(ids.dictionary), codes)

    def _note_unknown(self, side: Side, ids: Cells, at: pa.Array) -> None:
        """Note ids of which `at` (D,), a place for each that is distinct, has none."""
        policies = self._policies
        policy = policies.unknown_items if side == "items" else policies.unknown_users
        if policy == "error":
            absent = np.asarray(at.is_null())
            ids.note(
                absent[np.asarray(ids.values.indices)],
                f"the table of {side} has no such key",
                f"add it, or set policies.unknown_{side}: keep, which scores it without attributes",
            )

    def _columns(
        self, features: Sequence[Feature], rows: Rows, side: Side | None
    ) -> dict[str, pa.Array]:
        """Return the columns that `features` read, by the names that the encoder looks for."""
        names = columns_of(features)
        if side is None:
            return {name: rows.columns[name] for name in names}
        key, ids = self._own_key(side), rows.ids.get(_ROLES[side])
        return {name: ids if name == key else rows.columns[name] for name in names}

    def _encoded(
        self,
        side: Literal["users", "interactions", "items"],
        raw: _Raw,
        path: Path,
        numbers: Sequence[int],
    ) -> FeatureBlock:
        """Return a side encoded; errors name `path` and, of what is in the rows, `numbers`."""
        # A column of nulls holds the length where no other column is read.
        table = pa.table({"": pa.nulls(raw.num_rows), **raw.columns})
        try:
            block = self.encoder.encode(side, table)
        except DataError as error:
            known = () if raw.codes is not None else numbers
            raise error.within(path, numbers=known) from None
        return block if raw.codes is None else block.take(torch.from_numpy(raw.codes))


def read_side(
    side: Side, schema: Schema, paths: Mapping[str, str], policies: Policies
) -> pa.Table | None:
    """Return the attributes of one side: a row a key, side tables joined in.

    Args:
        side: whose.
        schema: of the trained model.
        paths: table name -> its path; None is returned where none is of this side.
        policies: what to do with rows that break a rule.

    Raises:
        ConfigError: a table that is needed has no path, or the schema declares none.
        DataError: a table is not as declared.
    """
    others = {name: one.key for name, one in schema.others.items() if one.joins == side}
    given = [name for name in (side, *others) if name in paths]
    if not given:
        return None
    if getattr(schema, side) is None:
        raise ConfigError(f"the model was trained without a table of {side}; leave out --{side}")
    needed = {feature.table for feature in schema.features_of(side)} | {side}
    for name in sorted(needed - set(given)):
        option = f"--{name} PATH" if name == side else f"--other {name}=PATH"
        raise ConfigError(f"the attributes of {side} are in '{name}' too: give {option}")
    keys = {side: schema.item_key if side == "items" else schema.user_key, **others}
    tables: dict[str, Attributes] = {}
    for name in given:
        features = [one for one in schema.column_features if one.table == name]
        tables[name] = read_attributes(
            open_table(paths[name], name),
            keys[name],
            features,
            policies,
            form=schema.form_of(side),
            trained=True,
            written=schema.number_texts,
        )
        tables[name].ledger.check()
    settled = settle_ids([one.ids for one in tables.values()], policies)
    for (name, one), ids in zip(list(tables.items()), settled, strict=True):
        unique = without_duplicates(Attributes(ids, one.columns, one.ledger), policies)
        unique.ledger.check()
        tables[name] = unique
    main = tables.pop(side)
    return joined(main, keys[side], tables)


def as_rows(table: pa.Table, place: str = "rows") -> TableFiles:
    """Return the files that messages name for rows without a file."""
    return table_at(path_at(place), "rows", table.column_names)


def _find(column: Cells, keys: pa.Array, side: Side) -> pa.Array:
    """Return the row of each id in `keys`, null where there is none."""
    ids = column.values
    if len(ids) == 0:
        return pa.nulls(0, pa.int32())
    if is_text(ids.type) != is_text(keys.type):
        raise DataError(
            f"holds {ids.type} ids, the table of {side} {keys.type} ids",
            file=column.ledger.files.paths[0],
            column=column.column,
            remedy="cast one of them",
        )
    if ids.type != keys.type:  # whole numbers, signed and unsigned
        ids, keys = ids.cast(pa.string()), keys.cast(pa.string())
    return pc.index_in(ids, keys)
