"""Requests to a pipeline: whole histories, with all that is known of their steps.

Each source reads what it knows of them: a two-tower the items, a model of sessions the steps since
the last pause.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.sessions import SessionConfig, sessions_of
from recsys.features.requests.table import request_table
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables


def whole_requests(
    schema: Schema, tables: Tables, kept: NDArray[np.bool_], users: NDArray[np.int64]
) -> pa.Table:
    """Return the requests of user rows `users` (B,), with the history of the events `kept` (E,).

    It is that of one session for each user, however the schema cuts the log. Events of other users
    are not looked at, so that a log is asked for in parts.
    """
    roles = schema.interactions.model_copy(update={"session": None})
    uncut = schema.model_copy(update={"interactions": roles})
    rows = _events_of(tables, users)
    known = tables.events.take(rows[kept[rows]])
    shown = Tables(tables.items, tables.users, known, (), tables.fingerprint)
    histories = Histories.build(known.user_row, known.item_row, known.time, tables.users.num_rows)
    sessions = sessions_of(uncut, known, SessionConfig())
    return request_table(uncut, shown, histories, users, sessions=sessions)


def _events_of(tables: Tables, users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the events of some users, ascending."""
    of_event = tables.events.user_row
    asked = distinct(users).astype(of_event.dtype)  # another type would copy the log
    starts = np.searchsorted(of_event, asked, side="left")
    lengths = np.searchsorted(of_event, asked, side="right") - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
