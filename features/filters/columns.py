"""The columns that predicates read: those of a model's catalogue, or of a table of today.

Both are in the order of the catalogue. Columns that the model reads are converted as in training,
and text that it cuts at a separator is a list; other columns of a fresh table are taken as they
are, and those of a CSV file are whole numbers, numbers, true and false, or else text, whatever all
of their values are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.bundle.files import TRAIN_COUNT
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.number_lists import FLOAT
from recsys.features.schema import Schema
from recsys.features.tables.attributes import Attributes, read_attributes, without_duplicates
from recsys.features.tables.ids import Ids, settle_ids
from recsys.features.tables.ledger import is_text, mask_of
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.plain_values import plain
from recsys.features.tables.reading import TableFiles, fingerprint, open_table
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import NULL_WORDS

_TEXTS: tuple[tuple[str, pa.DataType], ...] = (
    (r"^(true|false|True|False|TRUE|FALSE)$", pa.bool_()),
    (r"^(0|[+-]?[1-9][0-9]{0,17})$", pa.int64()),
    (FLOAT, pa.float64()),
)
"""What all values of a column of text look like, and the type that it then has."""


class CatalogueColumns:
    """The columns of the items that a model was trained with; see `predicate.Columns`."""

    place = "the model's catalogue"
    remedy = "; other columns can be read from a table given as items"

    def __init__(self, schema: Schema, read: Callable[[], pa.Table]) -> None:
        """Take the model's schema and what reads the catalogue once a column is needed."""
        self._schema, self._read = schema, read

    @property
    def names(self) -> Sequence[str]:
        """Key, title and the columns that the model reads."""
        return [name for name in self._table.column_names if name != TRAIN_COUNT]

    def column(self, name: str) -> pa.Array:
        """Return one, (N,)."""
        values = _whole(self._table.column(name))
        return _cut(values, name, self._schema.features_of("items"))

    @cached_property
    def _table(self) -> pa.Table:
        return self._read()


@dataclass(frozen=True, eq=False)
class FreshItems:
    """A table of items as they are today, in the order of a catalogue; see `predicate.Columns`.

    rows: (N,) the row of each item of the catalogue, -1 where the table lacks it. num_new: items
    that the catalogue lacks. fingerprint: of the files. called: what messages call the table;
    None: by its path.
    """

    files: TableFiles
    schema: Schema
    policies: Policies
    ids: pa.Array
    rows: NDArray[np.int64]
    num_new: int
    first_new: Any
    fingerprint: str
    called: str | None = None
    remedy: str = ""
    _read: dict[str, pa.Array] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        path: str,
        schema: Schema,
        policies: Policies,
        item_ids: pa.Array,
        called: str | None = None,
    ) -> "FreshItems":
        """Read the ids of the table; its columns are read when they are needed.

        Args:
            path: of the table.
            schema: of the trained model.
            policies: what to do with rows that break a rule.
            item_ids: (N,) of the catalogue.
            called: what messages call the table; None: by its path.

        Raises:
            NotFoundError: there is no such file.
            DataError: the key is missing, or an id is not one of the catalogue's kind.
        """
        files, key = open_table(path, "items"), schema.item_key
        attributes = read_attributes(files, key, [], policies, form=schema.ids.items, trained=True)
        attributes.ledger.check()
        ids = ids_like(attributes.ids, item_ids, policies)
        kept = without_duplicates(Attributes(ids, attributes.columns, attributes.ledger), policies)
        kept.ledger.check()
        own = kept.ids.distinct.take(pa.array(kept.ids.codes)).cast(item_ids.type)
        at = pc.index_in(item_ids, own)
        present = np.asarray(at.is_valid())
        rows = np.full(len(item_ids), -1)
        rows[present] = kept.ids.rows[np.asarray(at.drop_null())]
        new = own.filter(pc.invert(pc.is_in(own, item_ids)))
        first = new[0].as_py() if len(new) else None
        used = fingerprint([files])
        return cls(files, schema, policies, item_ids, rows, len(new), first, used, called)

    @property
    def place(self) -> str:
        """The first of the files, or what the table is called."""
        return self.called or str(self.files.paths[0])

    @property
    def names(self) -> Sequence[str]:
        """All columns of the table."""
        return self.files.columns

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items of the catalogue the table has, (N,)."""
        return self.rows >= 0

    def column(self, name: str) -> pa.Array:
        """Return a column, (N,), null where the table lacks an item.

        Raises:
            DataError: the model reads this column, and a value is not as in training.
        """
        if name == self.schema.item_key:
            return pc.if_else(pa.array(self.present), self.ids, pa.scalar(None, self.ids.type))
        if name not in self._read:
            values, numbers = self._values(name)
            order = np.searchsorted(numbers, np.maximum(self.rows, 0))
            at = pa.array(order, mask=~self.present)
            self._read[name] = values.take(at)
        return self._read[name]

    def _values(self, name: str) -> tuple[pa.Array, NDArray[np.int64]]:
        """Return the values of a column, (M,), and their row numbers, ascending."""
        features = [
            one
            for one in self.schema.column_features
            if one.table == "items" and name in one.columns
        ]
        if features:
            found = read_attributes(
                self.files,
                self.schema.item_key,
                features,
                self.policies,
                trained=True,
                written=self.schema.number_texts,
            )
            found.ledger.check()
            values = _whole(found.columns.column(name))
            return _cut(values, name, features), found.ids.rows
        parts = [batch.table.column(0) for batch in self.files.batches([name], some=[name])]
        chunks = [plain(chunk) for part in parts for chunk in part.chunks]
        values = _joined(chunks, self.files, name)
        if self.files.is_untyped(name):
            values = typed(values, self.schema.number_texts.get("items", PLAIN))
        return values, np.arange(len(values))


def ids_like(ids: Ids, known: pa.Array, policies: Policies) -> Ids:
    """Return ids as whole numbers or as text, whatever `known` (N,) is.

    Raises:
        DataError: they are of the other kind.
    """
    if not (ids.untyped and is_text(known.type)):
        (ids,) = settle_ids([ids], policies)
        ids.ledger.check()
    if len(ids.distinct) and is_text(ids.distinct.type) != is_text(known.type):
        raise DataError(
            f"{ids.distinct.type} ids, the model has {known.type} ids",
            file=ids.files,
            column=ids.column,
            value=repr(ids.distinct[int(ids.codes[0])].as_py()),
            remedy=f"cast them to {known.type}",
        )
    return ids


def typed(values: pa.Array, written: NumberText = PLAIN) -> pa.Array:
    """Return text (N,) of a CSV file in the type that all of its values have."""
    null = mask_of(pc.is_null(values)) | mask_of(pc.is_in(values, pa.array(NULL_WORDS)))
    words = values.filter(pa.array(~null))
    if not len(words):
        return pa.nulls(len(values))
    if not written.is_plain:
        if mask_of(pc.match_substring_regex(words, written.pattern)).all():
            values, words = written.as_plain(values), written.as_plain(words)
        elif mask_of(pc.match_substring_regex(words, PLAIN.pattern)).all():
            return values  # numbers of another way of writing stay text
    for pattern, kind in _TEXTS:
        if mask_of(pc.match_substring_regex(words, pattern)).all():
            found = pc.if_else(pa.array(null), pa.scalar(None, values.type), values)
            return found.cast(kind)
    return values


def _cut(values: pa.Array, name: str, features: Sequence[Feature]) -> pa.Array:
    """Return text (N,) that a feature cuts into several categories as lists; else as it is."""
    for one in features if is_text(values.type) else ():
        if one.source_column == name and one.is_category and one.has_several:
            rows, parts = one.rows_and_values(pa.chunked_array([values]))
            bounds = np.searchsorted(rows, np.arange(len(values) + 1))
            null = pa.array(~np.asarray(values.is_valid()))
            return pa.LargeListArray.from_arrays(pa.array(bounds), parts, mask=null)
    return values


def _joined(chunks: list[Any], files: TableFiles, name: str) -> pa.Array:
    try:
        tables = [pa.table({name: chunk}) for chunk in chunks or [pa.nulls(0)]]
        return _whole(pa.concat_tables(tables, promote_options="permissive").column(0))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"values of several types ({str(error).splitlines()[0]})",
            file=files.paths[0],
            column=name,
            remedy="cast them to one type",
        ) from None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, values.type)
    return plain(values)
