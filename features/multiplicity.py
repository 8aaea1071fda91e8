"""`multiplicity: auto`, settled: features that tell more values apart read more rows."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.columns import as_lists, column_of
from features.encoder import SIDES, Side
from recsys.embeddings.plan import allocate
from recsys.schema import Schema


def settle(schema: Schema, tables: Mapping[Side, pa.Table], lookups: int | None) -> Schema:
    """Return the schema with a number in place of every `auto`.

    Args:
        schema: roles and features.
        tables: the training rows of each side, as the encoder is fitted on.
        lookups: table reads that these features share; None: twice as many as features.
    """
    cardinalities = {}
    for side in SIDES:
        for feature in schema.features_of(side):
            if getattr(feature, "multiplicity", 1) != "auto":
                continue
            # Hours and weekdays are few: one row tells each of them from the others.
            values = 1 if feature.kind == "timestamp" else _distinct(tables[side], feature)
            cardinalities[feature.name] = values
    if not cardinalities:
        return schema
    budget = 2 * len(cardinalities) if lookups is None else lookups
    return schema.with_multiplicities(allocate(cardinalities, budget))


def _distinct(table: pa.Table, feature: Any) -> int:
    column = column_of(table, feature)
    values = column if feature.kind == "categorical" else as_lists(column, feature).flatten()
    return int(pc.count_distinct(values, mode="all").as_py())
