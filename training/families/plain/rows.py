"""The training rows as plain models and memories count them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.core.distinct import distinct, distinct_codes
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import TRAIN
from recsys.features.kinds.feature import Feature
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables
from recsys.plain.kind import Counted
from recsys.retrieval.follow import Matrix


def counted(data: Dataset, sessions: Sessions | None, *, attributes: bool = False) -> Counted:
    """Return the training rows of `data`.

    Args:
        data: the encoded log.
        sessions: how it is cut; None: a sequence is all of a user.
        attributes: whether those of the items are read as well.
    """
    rows = rows_of(data.schema, data.tables, data.part, sessions)
    return replace(rows, attributes=tuple(item_values(data))) if attributes else rows


def rows_of(
    schema: Schema, tables: Tables, part: NDArray[np.int8], sessions: Sessions | None
) -> Counted:
    """Return the training rows of a log that is not encoded, without attributes of the items.

    Args:
        schema: of the tables.
        tables: the log, and the items.
        part: (E,) the part of each event.
        sessions: as for `counted`.
    """
    events = tables.events
    rows = np.flatnonzero(part == TRAIN)
    sequence = events.user_row[rows].astype(np.int64)
    if sessions is not None:
        trained = sessions.only(part == TRAIN)
        rows = trained.order
        sequence = np.repeat(np.arange(len(trained)), trained.lengths())
    weight = _type_weights(schema, events.type)
    if weight is not None:
        counts = weight[rows] > 0
        rows, sequence, weight = rows[counts], sequence[counts], weight[rows[counts]]
    has_clock = schema.interactions.time is not None
    return Counted(
        user=events.user_row[rows],
        sequence=sequence,
        item=events.item_row[rows],
        time=events.time[rows] if has_clock else None,
        num_items=tables.items.num_rows,
        weight=weight,
    )


def _type_weights(schema: Schema, types: NDArray[np.int8] | None) -> NDArray[np.float32] | None:
    """Return how much events of their types count, (E,), the heaviest 1; None: all the same."""
    role = schema.interactions.events
    if role is None or types is None:
        return None
    of_types = np.array(list(role.weights.values()), np.float32)
    if (of_types == of_types[0]).all():
        return None
    return (of_types / of_types.max())[types]


def attribute_features(schema: Schema) -> list[Feature]:
    """Return the attributes of the items: categories of any kind, but not the id."""
    return [one for one in schema.features_of("items") if one.is_category and not schema.is_id(one)]


def item_values(data: Dataset) -> list[Matrix]:
    """Return which item has which value, (n_items, V) CSR of ones for each attribute.

    See `attribute_features`.
    """
    layout = data.encoder.layout("items")
    single = [name for name, _ in layout.single]
    multi = [name for name, _ in layout.multi]
    found = []
    for feature in attribute_features(data.schema):
        if feature.name in single:
            hashes = data.items.single[:, single.index(feature.name)].numpy()
            found.append(_incidence(hashes, np.ones(len(hashes), np.int64)))
        else:
            values = data.items.multi[multi.index(feature.name)]
            found.append(_incidence(values.values.numpy(), values.lengths().numpy()))
    return found


def _incidence(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> Matrix:
    known, code = distinct_codes(values)
    pairs = distinct(np.repeat(np.arange(len(lengths)), lengths) * len(known) + code)
    rows, columns = np.divmod(pairs, len(known))
    ones = np.ones(len(pairs), np.float32)
    return sparse.coo_array((ones, (rows, columns)), shape=(len(lengths), len(known))).tocsr()
