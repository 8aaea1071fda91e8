"""The columns that features of relations are, for rows of a log or rows to be scored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.kinds.relation_feature import LOG, RelationFeature
from recsys.features.relations.facts import KEYS, Asked, Facts, Key
from recsys.features.relations.linking import ORPHANS, RelationRows
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Drop

if TYPE_CHECKING:
    from recsys.features.tables.checked import Events


def relation_columns(
    features: Sequence[RelationFeature], relations: Mapping[str, Facts], asked: Asked
) -> dict[str, pa.Array]:
    """Return a column of numbers for each feature whose relation is there, (N,) float64 or null.

    Raises:
        DataError: ids are text in one table and numbers in the other.
    """
    found = {}
    for feature in features:
        if feature.relation in relations:
            values = feature.number(relations[feature.relation], asked)
            found[feature.source_column] = pa.array(values, mask=np.isnan(values))
    return found


def with_relations(
    events: "Events",
    schema: Schema,
    relations: Mapping[str, RelationRows],
    keys: Mapping[Key, pa.ChunkedArray],
) -> tuple["Events", tuple[str, ...], list[Drop]]:
    """Return events with the columns of relations, a sentence on each relation, and the orphans.

    Args:
        events: of a log.
        schema: whose features are computed.
        relations: what was read, their ids of the types that `keys` have.
        keys: the ids of users and items, by row.

    Raises:
        DataError: what a relation's ledger holds is an error.
    """
    if not relations:
        return events, (), []
    known = {key: column.combine_chunks() for key, column in keys.items()}
    places = {"user": events.user_row, "item": events.item_row}
    ids = {key: (known[key], places[key].astype(np.int64)) for key in KEYS}
    facts = {name: rows.whole() for name, rows in relations.items()}
    columns = relation_columns(schema.relation_features, facts, Asked(ids, events.time))
    context = events.context
    for name, values in columns.items():
        context = context.append_column(name, values)
    matches = tuple(_match(rows, known) for rows in relations.values())
    drops: list[Drop] = []
    for name, rows in relations.items():
        found = rows.ledger.settle()
        drops += [] if name == LOG else found  # of the log, its own reader says the same
    return replace(events, context=context), matches, drops


def _match(rows: RelationRows, known: Mapping[Key, pa.Array]) -> str:
    """Note the rows whose user or item is not known; say how many are."""
    name, num_rows, parts = rows.facts.name, len(rows.facts), []
    for key, ids in rows.keys.items():
        absent = np.asarray(pc.invert(pc.is_in(ids.distinct, known[key])))[ids.codes]
        parts.append(f"{1 - absent.mean():.1%} of a known {key}" if num_rows else "none is left")
        if name != LOG and absent.any():
            first = int(ids.codes[np.flatnonzero(absent)[0]])
            rows.ledger.note(
                ids.column,
                f"no {key} of the data has this key",
                ids.rows[absent],
                rule=ORPHANS,
                value=repr(ids.distinct[first].as_py()),
            )
    return f"relation '{name}': {num_rows:,} rows, {', '.join(parts)}"
