"""`multiplicity: auto`, settled: features that distinguish more values read more rows."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.embeddings.plan import allocate
from recsys.features.encoding.columns import columns_of
from recsys.features.encoding.encoder import SIDES, Side
from recsys.features.schema import Schema


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
        known: feature -> the values that its encoder distinguishes, where not all of them.

    Raises:
        ConfigError: there are lookups to share, and no feature to share them.
    """
    cardinalities = {}
    for side in SIDES:
        for feature in schema.features_of(side):
            if feature.asked_multiplicity != "auto":
                continue
            name = feature.name
            if name in known:
                cardinalities[name] = len(known[name])
            else:
                column = columns_of(tables[side], feature)[0]
                cardinalities[name] = feature.values_to_share_rows(column)
    for derived in schema.row_features:
        if derived.asked_multiplicity == "auto":
            cardinalities[derived.name] = derived.num_values(
                lambda part: _values(schema, tables, known, part), tables["interactions"].num_rows
            )
    check_lookups(schema, lookups)
    if not cardinalities:
        return schema
    budget = 2 * len(cardinalities) if lookups is None else lookups
    return schema.with_multiplicities(allocate(cardinalities, budget))


def check_lookups(schema: Schema, lookups: int | None) -> None:
    """Refuse lookups to share where no feature shares them.

    Raises:
        ConfigError: there is none.
    """
    asked = [one.asked_multiplicity for side in SIDES for one in schema.features_of(side)]
    asked += [derived.asked_multiplicity for derived in schema.row_features]
    if lookups is not None and "auto" not in asked:
        raise ConfigError(
            "embedding.lookups is shared out among the features of multiplicity: auto, and "
            "there is none: set it for some, or leave embedding.lookups out"
        )


def _values(
    schema: Schema,
    tables: Mapping[Side, pa.Table],
    known: Mapping[str, NDArray[np.int64]],
    name: str,
) -> int:
    """Return how many values are looked up as `name`."""
    for side in SIDES:
        for feature in schema.features_of(side):
            if name in feature.lookup_names:
                column = columns_of(tables[side], feature)[0]
                return len(known[name]) if name in known else feature.num_values(name, column)
    raise AssertionError(name)
