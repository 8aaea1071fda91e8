"""Requests whose answers a bundle keeps, so that whoever opens it can find out that it answers so.

See `recsys.features.bundle.request_probe`.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.requests.table import Requests, encode_requests, request_table
from recsys.features.tables.sources import Policies

PROBE_ROWS = 256
PROBE_K = 20


@dataclass(frozen=True)
class GoldenRequests:
    """Requests as a table and encoded, and the ids of the catalogue that they were encoded with."""

    table: pa.Table
    encoded: Requests
    item_ids: pa.Array


def golden_requests(
    data: Dataset, sessions: Sessions | None, *, history_length: int, policies: Policies
) -> GoldenRequests:
    """Return requests of users spread evenly over the table, with whole histories.

    Args:
        data: the encoded log.
        sessions: how it is cut, where the model reads sessions.
        history_length: how many events the model reads, the last ones.
        policies: those of the training.
    """
    ids = data.tables.items.column(data.schema.item_key).combine_chunks()
    histories = data.histories((TRAIN, VALIDATION, TEST))
    users = spread_users(data)
    table = request_table(data.schema, data.tables, histories, users, sessions=sessions)
    if sessions is None:
        table = _with_windows(data, table, users)
    encoded = encode_requests(
        data.encoder,
        ids,
        table,
        history_length=history_length,
        steps=sessions is not None,
        policies=policies,
    )
    return GoldenRequests(table, encoded, ids)


def _with_windows(data: Dataset, requests: pa.Table, users: NDArray[np.int64]) -> pa.Table:
    """Return requests with the windows of their users' last rows, null of those without a row."""
    rows = np.searchsorted(data.tables.events.user_row, users, side="right") - 1
    known = (rows >= 0) & (data.tables.events.user_row[rows] == users)
    for feature in data.schema.relation_features:
        values = data.tables.events.context.column(feature.source_column)
        requests = requests.append_column(
            feature.source_column, values.take(pa.array(rows, mask=~known))
        )
    return requests


def spread_users(data: Dataset) -> NDArray[np.int64]:
    """Return users spread evenly over the table, ascending."""
    count = min(PROBE_ROWS, data.num_users)
    return distinct(np.linspace(0, data.num_users - 1, count).astype(np.int64))
