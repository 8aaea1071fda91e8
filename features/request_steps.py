"""The steps of a request's history: what is known of each event beside its item, and when it was.

Beside `history` a table of requests may have `history_times`, lists of times in the schema's unit,
and for each column that describes an interaction, `history_<column>`, lists of its values. Each
list is as long as its row's history. What is absent or null is not known.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from features.columns import as_microseconds
from features.encoder import FeatureEncoder
from features.sessions import Sessions, gaps, pieces
from features.tables import Events
from features.times import NULL_TIME, UNITS
from features.validate import is_list, is_text
from recsys.batch import History, Jagged
from recsys.errors import ConfigError, DataError
from recsys.schema import Schema, TimeUnit

TIMES = "history_times"
_Ints = NDArray[np.int64]


def step_columns(schema: Schema) -> dict[str, str]:
    """Return the column of the interactions -> the column of requests with its lists.

    Raises:
        ConfigError: a column would be taken for the times.
    """
    sources = dict.fromkeys(one.source_column for one in schema.features_of("interactions"))
    names = {source: f"history_{source}" for source in sources}
    if TIMES in names.values():
        raise ConfigError(
            f"requests hold the times of a history in '{TIMES}', where the column 'times' of the "
            "interactions would lie too: rename the column"
        )
    return names


def encode_steps(
    encoder: FeatureEncoder, table: pa.Table, item_row: _Ints, row: _Ints, place: _Ints
) -> History:
    """Return T chosen steps of the histories of `table` (B rows).

    Args:
        encoder: of the trained model.
        table: the requests.
        item_row: (T,) rows of the catalogue.
        row: (T,) the request of each step, ascending.
        place: (T,) where in its request's history the step stands.

    Raises:
        DataError: a column is no list, is not as long as the history, or holds other values than
            the model was trained on; times go back.
    """
    schema = encoder.schema
    size = np.asarray(_lengths(table, "history"))
    columns = {
        source: _chosen(table, name, size, row, place)
        for source, name in step_columns(schema).items()
        if name in table.column_names
    }
    # A column of nulls holds the number of steps where no other does.
    known = pa.table({"": pa.nulls(len(row)), **columns})
    lengths = np.bincount(row, minlength=table.num_rows)
    return History(
        items=Jagged.of_lengths(item_row, lengths),
        features=encoder.encode("interactions", known),
        gap=torch.from_numpy(_gaps(schema, table, size, row, place, lengths)),
    )


def step_lists(schema: Schema, events: Events, numbers: _Ints, offsets: _Ints) -> pa.Table:
    """Return what is known of events as columns of requests, one list a request.

    Args:
        schema: of the events.
        events: the log.
        numbers: (T,) event numbers, request after request.
        offsets: (B + 1,) where the list of each request begins and ends.
    """
    rows, bounds = pa.array(numbers), pa.array(offsets)
    columns = {}
    if schema.interactions.time is not None:
        times = _in_unit(events.time[numbers], schema.interactions.time.unit)
        columns[TIMES] = pa.LargeListArray.from_arrays(bounds, times)
    for source, name in step_columns(schema).items():
        values = events.context.column(source).take(rows).combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        columns[name] = pa.LargeListArray.from_arrays(bounds, values)
    return pa.table(columns)


def last_session(sessions: Sessions, events: Events, users: _Ints) -> tuple[_Ints, _Ints]:
    """Return the events of each user's last session: numbers (T,), and lengths (B,).

    The last session is the one of the user's last event; a user without an event has none.
    """
    last = np.searchsorted(events.user_row, users, side="right") - 1
    known = np.searchsorted(events.user_row, users, side="left") <= last
    chosen = sessions.owner()[last]
    lengths = np.where(known, sessions.lengths()[chosen], 0)
    return sessions.order[pieces(sessions.offsets[chosen], lengths)], lengths


def _gaps(
    schema: Schema, table: pa.Table, size: _Ints, row: _Ints, place: _Ints, lengths: _Ints
) -> NDArray[np.float32]:
    time = schema.interactions.time
    if time is None or TIMES not in table.column_names:
        return gaps(None, lengths)
    values = _chosen(table, TIMES, size, row, place)
    found = _microseconds(values, time.unit)
    gap = gaps(found, lengths)
    known = found != NULL_TIME
    both = known.copy()
    both[1:] &= known[:-1] | (row[1:] != row[:-1])
    gap[~both] = np.nan
    back = np.flatnonzero(gap < 0)
    if len(back):
        raise DataError(
            f"requests, column '{TIMES}', row {row[back[0]] + 1}: the times go back; a history is "
            "oldest first"
        )
    return gap


def _microseconds(values: pa.Array, unit: TimeUnit) -> _Ints:
    """Return (T,) microseconds, `NULL_TIME` where null."""
    kind = values.type
    instant = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or is_text(kind)
    fits = instant if unit == "datetime" else pa.types.is_integer(kind)
    if not (fits or pa.types.is_null(kind)):
        wanted = "timestamps or ISO text" if unit == "datetime" else f"whole numbers in {unit}"
        raise DataError(f"requests, column '{TIMES}' holds {kind} values; it must hold {wanted}")
    try:
        times = as_microseconds(values, unit)
    except pa.ArrowInvalid as error:
        raise DataError(f"requests, column '{TIMES}': not a time ({error})") from None
    return np.where(times.valid, times.values, NULL_TIME)


def _in_unit(time: _Ints, unit: TimeUnit) -> pa.Array:
    """Return microseconds as the schema's column holds them."""
    if unit == "datetime":
        return pa.array(time, pa.timestamp("us", "UTC"))
    ticks = UNITS[unit]
    return pa.array(
        time // (1_000_000 // ticks) if ticks <= 1_000_000 else time * (ticks // 1_000_000)
    )


def _chosen(table: pa.Table, name: str, size: _Ints, row: _Ints, place: _Ints) -> pa.Array:
    """Return value place[t] of the list of row[t], (T,); null where the row has no list."""
    column = table.column(name).combine_chunks()
    if pa.types.is_null(column.type):
        return pa.nulls(len(row))
    if not is_list(column.type):
        raise DataError(
            f"requests, column '{name}' is {column.type}; it must be a list, one value for each "
            "item of the history"
        )
    given, lengths = np.asarray(column.is_valid()), _lengths(table, name)
    wrong = np.flatnonzero(given & (lengths != size))
    if len(wrong):
        raise DataError(
            f"requests, column '{name}', row {wrong[0] + 1}: {lengths[wrong[0]]} values, but the "
            f"history has {size[wrong[0]]} items; the two go together one by one"
        )
    starts = np.cumsum(lengths) - lengths
    return column.flatten().take(pa.array(starts[row] + place, mask=~given[row]))


def _lengths(table: pa.Table, name: str) -> _Ints:
    """Return the length of each row's list, (B,), 0 where null."""
    column = table.column(name).combine_chunks()
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    return np.asarray(pc.list_value_length(column).fill_null(0)).astype(np.int64)
