"""Items, users and side tables: one row a key, with the columns that features read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.distinct import first_places
from recsys.core.errors import DataError
from recsys.features.kinds.convert import columns_of, join_batches
from recsys.features.kinds.feature import Feature
from recsys.features.tables.id_forms import IdForm
from recsys.features.tables.ids import IdCollector, Ids
from recsys.features.tables.ledger import Cells, Ledger, Mask, is_list
from recsys.features.tables.number_text import NumberText
from recsys.features.tables.reading import TableFiles
from recsys.features.tables.rows import IdRole, RowReader, RowRoles
from recsys.features.tables.sources import Policies, Rule

_LEFT_JOIN = Rule("left join", choice="")


@dataclass(frozen=True, eq=False)
class Attributes:
    """N rows in reading order: their keys, and the other columns."""

    ids: Ids
    columns: pa.Table
    ledger: Ledger

    def keep(self, mask: Mask) -> "Attributes":
        """Return the rows where `mask` (N,) holds."""
        if mask.all():
            return self
        ids = self.ids.with_rows(self.ids.codes[mask], self.ids.rows[mask])
        return replace(self, ids=ids, columns=self.columns.filter(pa.array(mask)))


def read_attributes(
    files: TableFiles,
    key: str,
    features: Iterable[Feature],
    policies: Policies,
    *,
    form: IdForm | None = None,
    title: str | None = None,
    trained: bool = False,
    written: Mapping[str, NumberText] | None = None,
) -> Attributes:
    """Read the key, the title and the columns of `features`; bad rows go to the ledger.

    `form`: how the keys are written, None: as they come. `trained`: as `Ledger` has it. `written`:
    as `RowRoles` has it.

    Raises:
        DataError: a column is missing or of the wrong type, or the table is empty.
    """
    features = [feature for feature in features if feature.source_column != key]
    read = columns_of(features)
    alone = [] if title is None or title in (key, *read) else [title]
    forms: dict[IdRole, IdForm] = {} if form is None else {"key": form}
    roles = RowRoles(
        ids={"key": key}, id_forms=forms, features=features, plain=alone, written=written or {}
    )
    ledger = Ledger(files, trained=trained)
    reader, collector = RowReader(files, roles, policies, ledger), IdCollector(key, ledger, form)
    parts: dict[str, list[pa.Array]] = {name: [] for name in roles.converted}
    numbers = [np.zeros(0, np.int64)]
    for rows in reader.batches():
        collector.add(rows.ids["key"])
        numbers.append(rows.rows)
        for name, batches in parts.items():
            batches.append(rows.columns[name])
        for name in alone:
            _check_title(Cells(name, rows.columns[name], rows.rows, ledger))
    reader.refuse_no_rows()
    columns = {
        name: join_batches(
            batches,
            files.paths[0],
            name,
            untyped=files.is_untyped(name) and name in read,
        )
        for name, batches in parts.items()
    }
    row_numbers = np.concatenate(numbers)
    # A column of row numbers holds the length where no other column is read.
    table = pa.table({**columns, "": pa.array(row_numbers)}).select(list(columns))
    return Attributes(collector.finish(row_numbers), table, ledger)


def _check_title(column: Cells) -> None:
    if is_list(column.values.type):
        column.refuse("a list where a title is expected", "name a column of text")


def without_duplicates(attributes: Attributes, policies: Policies) -> Attributes:
    """Keep one row a key, as the policy says; the others go to the ledger."""
    codes = attributes.ids.codes
    order = codes[::-1] if policies.duplicate_keys == "last" else codes
    first = first_places(order)
    chosen = len(codes) - 1 - first if policies.duplicate_keys == "last" else first
    keep = np.zeros(len(codes), bool)
    keep[chosen] = True
    at = np.flatnonzero(~keep)
    if len(at):
        repeated = attributes.ids.distinct[int(codes[at[0]])].as_py()
        attributes.ledger.note(
            attributes.ids.column,
            "the key has an earlier row"
            if policies.duplicate_keys != "last"
            else "the key has a later row",
            attributes.ids.rows[at],
            remedy="keep one row a key",
            rule=policies.rule("duplicate_keys", "first (or last)"),
            value=repr(repeated),
        )
    return attributes.keep(keep)


def joined(main: Attributes, key: str, sides: Mapping[str, Attributes]) -> pa.Table:
    """Return key and columns of `main` with those of its side tables, null where they lack a key.

    Raises:
        DataError: two tables bring a column of one name.
    """
    keys = main.ids.distinct.take(pa.array(main.ids.codes))
    table = pa.table({key: keys})
    table = _with_columns(table, main.columns, main.ledger.files.table)
    for name, side in sides.items():
        side_keys = side.ids.distinct.take(pa.array(side.ids.codes))
        at = pc.index_in(keys, side_keys)
        unmatched = np.asarray(pc.invert(pc.is_in(side_keys, keys)))
        side.ledger.note(
            side.ids.column,
            f"no row of {main.ledger.files.table} has this key",
            side.ids.rows[unmatched],
            rule=_LEFT_JOIN,
        )
        table = _with_columns(table, side.columns.take(at), name)
    return table


def _with_columns(table: pa.Table, more: pa.Table, name: str) -> pa.Table:
    for column in more.column_names:
        if column in table.column_names:
            raise DataError(
                f"table '{name}' brings it, and another table of the same side has it too",
                column=column,
                remedy="rename one of them in the source",
            )
        table = table.append_column(column, more.column(column))
    return table


def sorted_union(table: pa.Table | None, key: str, more: pa.Array) -> pa.Table:
    """Return `table` with a row of nulls for each key of `more` that it lacks, sorted by key."""
    if table is None:
        table = pa.table({key: more})
    else:
        new = more.filter(pc.invert(pc.is_in(more, table.column(key).combine_chunks())))
        if len(new):
            nulls = {
                name: pa.nulls(len(new), table.schema.field(name).type)
                for name in table.column_names
                if name != key
            }
            extra = pa.table({key: new, **nulls}).select(table.column_names)
            table = pa.concat_tables([table, extra])
    return table.take(pc.sort_indices(table, [(key, "ascending")])).combine_chunks()
