"""Reads the relations that features are of: the keys, times and columns that they need.

Rows are checked as those of a log are. A relation whose rows lead to those of another has, where it
lacks them itself, the keys and the time of the row that each leads to.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.encoding.hashing import NULL_HASH, hash_values
from recsys.features.kinds.convert import number
from recsys.features.kinds.relation_feature import LOG
from recsys.features.relations.facts import Facts
from recsys.features.relations.linking import RelationRows, linked, without_repeats
from recsys.features.relations.timeline import Floats, Integers
from recsys.features.relations.wanted import Wanted, relations_needed, wanted_of
from recsys.features.schema import Schema
from recsys.features.tables.condition import Condition
from recsys.features.tables.conditions import conditions_met
from recsys.features.tables.growing import GrowingArray
from recsys.features.tables.ids import IdCollector
from recsys.features.tables.ledger import Cells, Ledger, cells, is_list, is_text
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.reading import TableFiles, open_table
from recsys.features.tables.rows import RowReader, Rows
from recsys.features.tables.sources import Logs, Policies, Source
from recsys.features.tables.times import latest_seconds


def read_relations(
    schema: Schema,
    files: Mapping[str, TableFiles],
    policies: Policies,
    *,
    latest: float,
    trained: bool = False,
) -> dict[str, RelationRows]:
    """Read the relations of `files` that features are of, by name; the log as `interactions`.

    Args:
        schema: of the log.
        files: name -> files; those of other tables are passed over.
        policies: what is done with rows that break a rule.
        latest: the instant after which a time is in the future, in seconds since 1970.
        trained: as `Ledger` has it.

    Raises:
        DataError: a table is not as declared.
    """
    found: dict[str, RelationRows] = {}
    for name in relations_needed(schema):
        if name in files:
            ledger = Ledger(files[name], trained=trained)
            found[name] = _read(name, wanted_of(schema, name), policies, ledger, latest)
            ledger.check()
    for name, rows in found.items():
        link = None if name == LOG else schema.relations[name].link
        if name == LOG:
            found[name] = without_repeats(rows, policies)
        elif link is not None:
            found[name] = linked(rows, found[link[1]], policies)
            rows.ledger.check()
    return found


def facts_of(
    schema: Schema, paths: Mapping[str, Source | Logs], policies: Policies
) -> dict[str, Facts]:
    """Return the relations among some tables, for rows to be scored.

    Args:
        schema: of the trained model.
        paths: table -> path.
        policies: what is done with rows that break a rule.

    Raises:
        ConfigError: a relation leads to another that has no path.
        DataError: a table is not as declared.
    """
    needed = [name for name in relations_needed(schema) if name in paths]
    for name in needed:
        link = None if name == LOG else schema.relations[name].link
        if link is not None and link[1] not in paths:
            raise ConfigError(
                f"the rows of '{name}' have keys or times of '{link[1]}': give --other "
                f"{link[1]}=PATH too"
            )
    files = {name: open_table(paths[name], name) for name in needed}
    latest = latest_seconds(policies)
    found = read_relations(schema, files, policies, latest=latest, trained=True)
    for rows in found.values():
        rows.ledger.check()
    return {name: rows.settled(policies).whole() for name, rows in found.items()}


def _read(
    name: str, wanted: Wanted, policies: Policies, ledger: Ledger, latest: float
) -> RelationRows:
    """Read the usable rows of a relation, batch by batch."""
    reader = RowReader(ledger.files, wanted.roles, policies, ledger, latest=latest)
    collectors = {
        role: IdCollector(column, ledger, wanted.id_forms.get(role))
        for role, column in wanted.ids.items()
    }
    places, clock = GrowingArray(np.int64), GrowingArray(np.int64)
    numbers = {column: GrowingArray(np.float64) for column in wanted.numbers}
    codes = {column: GrowingArray(np.int64) for column in wanted.codes}
    met = {where: GrowingArray(np.bool_) for where in wanted.wheres}
    for rows in reader.batches():
        places.append(rows.rows)
        if rows.clock is not None:
            clock.append(rows.clock)
        for role, collector in collectors.items():
            collector.add(rows.ids[role])
        found = columns_of_rows(rows, wanted, policies, ledger)
        for column, values in found.numbers.items():
            numbers[column].append(values)
        for column, own in found.codes.items():
            codes[column].append(own)
        for where, mask in found.met.items():
            met[where].append(mask)
    reader.refuse_no_rows()
    facts = Facts(
        name,
        np.zeros(0, np.int64) if wanted.time is None else clock.values(),
        numbers={column: growing.values() for column, growing in numbers.items()},
        codes={column: growing.values() for column, growing in codes.items()},
        met={where: growing.values() for where, growing in met.items()},
    )
    ids = {role: one.finish(places.values()) for role, one in collectors.items()}
    return RelationRows(facts, ids, ledger, has_time=wanted.time is not None)


class RowColumns(NamedTuple):
    """Of N rows, what `Facts` has by the same names."""

    numbers: dict[str, Floats]
    codes: dict[str, Integers]
    met: dict[tuple[Condition, ...], NDArray[np.bool_]]


def columns_of_rows(rows: Rows, wanted: Wanted, policies: Policies, ledger: Ledger) -> RowColumns:
    """Return the columns of a batch of a relation that features read."""
    numbers = {}
    for column in wanted.numbers:
        found = number(_cells(column, rows, ledger, wanted.written), policies)
        numbers[column] = np.asarray(found.fill_null(np.nan))
    codes = {column: _codes(_cells(column, rows, ledger)) for column in wanted.codes}
    met = {where: _met(where, rows, ledger, wanted.written) for where in wanted.wheres}
    return RowColumns(numbers, codes, met)


def _cells(column: str, rows: Rows, ledger: Ledger, written: NumberText = PLAIN) -> Cells:
    return cells(pa.table({column: rows.columns[column]}), column, rows.rows, ledger, written)


def _codes(column: Cells) -> Integers:
    """Return a number from 0 for each value, equal for equal ones, (N,); -1 where null."""
    values = column.values
    if is_list(values.type):
        column.refuse("a list where one value is expected", "name a column of one value a row")
    if not (is_text(values.type) or pa.types.is_integer(values.type)):
        values = values.cast(pa.string())
    hashes = hash_values(values)
    return np.where(hashes == NULL_HASH, -1, hashes & np.iinfo(np.int64).max)


def _met(
    where: tuple[Condition, ...], rows: Rows, ledger: Ledger, written: NumberText
) -> NDArray[np.bool_]:
    """Return which rows meet the conditions of a feature, (N,)."""
    columns = {one.column: rows.columns[one.column] for one in where}
    return conditions_met(pa.table(columns), rows.rows, where, Ledger(ledger.files), written)
