"""`multiplicity: auto`, settled: features that tell more values apart read more rows."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.embeddings.plan import allocate
from recsys.features.encoding.columns import as_lists, column_of
from recsys.features.encoding.encoder import SIDES, Side
from recsys.features.encoding.scaling import DEFAULT_BINS
from recsys.features.kinds.derived import CrossFeature
from recsys.features.schema import Schema, lookup_names


def settle(
    schema: Schema,
    tables: Mapping[Side, pa.Table],
    lookups: int | None,
    known: Mapping[str, NDArray[np.int64]],
) -> Schema:
    """Return the schema with a number in place of every `auto`.

    A cross has as many values as its parts have pairs, but no more than there are rows.

    Args:
        schema: roles and features.
        tables: the training rows of each side, as the encoder is fitted on.
        lookups: table reads that these features share; None: twice as many as features.
        known: feature -> the values that its encoder tells apart, where it does not all.
    """
    cardinalities = {}
    for side in SIDES:
        for feature in schema.features_of(side):
            if getattr(feature, "multiplicity", 1) != "auto":
                continue
            name = feature.name
            if name in known:
                cardinalities[name] = len(known[name])
            elif feature.kind == "timestamp":
                # Hours and weekdays are few: one row tells each of them from the others.
                cardinalities[name] = 1
            else:
                cardinalities[name] = _distinct(tables[side], feature)
    for cross in schema.derived_features:
        if isinstance(cross, CrossFeature) and cross.multiplicity == "auto":
            pairs = prod(_values(schema, tables, known, part) for part in cross.of)
            cardinalities[cross.name] = min(pairs, tables["interactions"].num_rows)
    if not cardinalities:
        return schema
    budget = 2 * len(cardinalities) if lookups is None else lookups
    return schema.with_multiplicities(allocate(cardinalities, budget))


def _values(
    schema: Schema,
    tables: Mapping[Side, pa.Table],
    known: Mapping[str, NDArray[np.int64]],
    name: str,
) -> int:
    """Return how many values the part `name` of a cross has."""
    for side in SIDES:
        for feature in schema.features_of(side):
            if name not in lookup_names(feature):
                continue
            if feature.kind == "timestamp":
                return 24 if name.endswith(".hour") else 7
            if feature.kind == "numeric":
                return feature.bins if isinstance(feature.bins, int) else DEFAULT_BINS
            return len(known[name]) if name in known else _distinct(tables[side], feature)
    raise AssertionError(name)


def _distinct(table: pa.Table, feature: Any) -> int:
    column = column_of(table, feature)
    values = column if feature.kind == "categorical" else as_lists(column, feature).flatten()
    return len(values.unique())
