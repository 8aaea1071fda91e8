"""The steps of a request's history: what is known of each event besides its item, and its time.

Besides `history`, a table of requests may have `history_times`, lists of times in the schema's
unit, and for each column that describes an interaction, `history_<column>`, lists of its values.
Each list is as long as its row's history. What is absent or null is not known.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.strict import nearest
from recsys.data.batch import History, Jagged
from recsys.features.dataset.sessions import Sessions, gaps, pieces
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.kinds.convert import columns_of
from recsys.features.requests.origin import RequestOrigin
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events
from recsys.features.tables.ledger import Cells, Ledger, is_list
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.rows import RowReader, RowRoles
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import (
    NULL_TIME,
    UNITS,
    TimeForm,
    TimeUnit,
    microseconds,
    raw_times,
)

TIMES = "history_times"
_MINUTE = 60_000_000  # microseconds
_Ints = NDArray[np.int64]


def step_columns(schema: Schema) -> dict[str, str]:
    """Return the column of the interactions -> the column of requests with its lists.

    Raises:
        ConfigError: a column has the name of the times.
    """
    sources = columns_of(schema.features_of("interactions"))
    names = {source: f"history_{source}" for source in sources}
    if TIMES in names.values():
        raise ConfigError(
            f"requests hold the times of a history in '{TIMES}', where the column 'times' of the "
            "interactions would be too: rename the column"
        )
    return names


def refuse_unknown_columns(schema: Schema, names: list[str], origin: RequestOrigin) -> None:
    """Refuse a column of requests that is named like one of steps, but is none.

    Raises:
        DataError: there is one; the nearest name is named.
    """
    steps = [TIMES, *step_columns(schema).values()]
    others = {schema.user_key, *(side.key for side in schema.others.values())}
    others |= set(columns_of(schema.features_of("users")))
    for name in names:
        if name.startswith("history_") and name not in steps and name not in others:
            raise origin.error(
                f"the model knows no such column{nearest(name, steps)}; of the steps of a history "
                f"it reads {', '.join(steps)}",
                name,
                remedy="rename the column or leave it out",
            )


def step_times(schema: Schema, table: pa.Table, origin: RequestOrigin) -> _Ints | None:
    """Return when each of the T steps of all histories was, (T,), oldest first in each request.

    In microseconds, `NULL_TIME` where not known; None: the requests or the schema have no times.

    Raises:
        DataError: no list, not as long as the history, no times, or times that go back.
    """
    time = schema.interactions.time
    if time is None or TIMES not in table.column_names:
        return None
    size = _lengths(table, "history")
    row = np.repeat(np.arange(len(size)), size)
    values = _chosen(table, TIMES, size, np.arange(len(row)), origin)
    found = _microseconds(values, time.form, row, origin.files(table.column_names), origin)
    known = np.flatnonzero(found != NULL_TIME)
    back = np.flatnonzero((np.diff(found[known]) < 0) & (np.diff(row[known]) == 0))
    if len(back):
        raise origin.error(
            "the times go back, but a history is oldest first",
            TIMES,
            row[known[back[0]]],
            remedy="sort its items, times and other lists by time",
        )
    return found


def check_step_lists(schema: Schema, table: pa.Table, origin: RequestOrigin) -> None:
    """Check what is said of the steps of histories, for a model that does not read it.

    Raises:
        DataError: times as for `step_times`; a list is not as long as the history.
    """
    step_times(schema, table, origin)
    own = set(columns_of(schema.features_of("users")))
    size = _lengths(table, "history")
    for source in columns_of(schema.features_of("interactions")):
        name = f"history_{source}"
        if name in table.column_names and name not in own:
            _chosen(table, name, size, np.zeros(0, np.int64), origin)


def since_the_last_pause(times: _Ints, row: _Ints, minutes: float) -> NDArray[np.bool_]:
    """Return which of T steps come after the last pause of their history, (T,).

    Args:
        times: (T,) as `step_times` gives them.
        row: (T,) the request of each step, ascending.
        minutes: what is longer between two neighbours, both of a known time, is a pause.
    """
    known = np.flatnonzero(times != NULL_TIME)
    pause = np.diff(times[known]) > minutes * _MINUTE
    pause &= (np.diff(known) == 1) & (np.diff(row[known]) == 0)
    begins = known[1:][pause]
    first = np.zeros(int(row.max(initial=-1)) + 1, np.int64)
    np.maximum.at(first, row[begins], begins)
    return np.asarray(np.arange(len(times)) >= first[row], bool)


def encode_steps(
    encoder: FeatureEncoder,
    table: pa.Table,
    item_row: _Ints,
    steps: _Ints,
    times: _Ints | None,
    policies: Policies,
    origin: RequestOrigin,
) -> History:
    """Return S chosen steps of the T of the histories of `table` (B rows).

    Args:
        encoder: of the trained model.
        table: the requests.
        item_row: (S,) rows of the catalogue.
        steps: (S,) numbers of the steps among all T, ascending.
        times: (T,) of `step_times`.
        policies: those of the training.
        origin: of the requests.

    Raises:
        DataError: a column is no list, is not as long as the history, or holds other values than
            the model was trained on.
    """
    names = step_columns(encoder.schema)
    size = _lengths(table, "history")
    columns = {
        name: _chosen(table, name, size, steps, origin)
        if name in table.column_names
        else pa.nulls(len(steps))
        for name in names.values()
    }
    row = np.repeat(np.arange(len(size)), size)[steps]
    lengths = np.bincount(row, minlength=len(size))
    # A column of nulls holds the number of steps where no other does.
    chosen = pa.table({"": pa.nulls(len(steps)), **columns})
    known = _checked(encoder.schema, chosen, origin.first_row + row, policies, origin)
    with origin.named(names, row):
        features = encoder.encode("interactions", known)
    return History(
        items=Jagged.of_lengths(item_row, lengths),
        features=features,
        gap=torch.from_numpy(_gaps(None if times is None else times[steps], row, lengths)),
    )


def _checked(
    schema: Schema, chosen: pa.Table, row: _Ints, policies: Policies, origin: RequestOrigin
) -> pa.Table:
    """Return columns of requests that hold S steps by their names in the log, checked as there."""
    files = origin.files(chosen.column_names)
    ledger = Ledger(files, trained=True)
    roles = RowRoles(
        features=schema.features_of("interactions"),
        called=step_columns(schema),
        written=schema.number_texts,
    )
    rows = RowReader(files, roles, policies, ledger).read(Batch(chosen, row))
    ledger.check()
    return pa.table({"": pa.nulls(len(row)), **rows.columns})


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
    if not len(events):
        return np.zeros(0, np.int64), np.zeros(len(users), np.int64)
    last = np.searchsorted(events.user_row, users, side="right") - 1
    known = np.searchsorted(events.user_row, users, side="left") <= last
    chosen = sessions.owner()[last[known]]
    lengths, starts = np.zeros(len(users), np.int64), np.zeros(len(users), np.int64)
    lengths[known], starts[known] = sessions.lengths()[chosen], sessions.offsets[chosen]
    return sessions.order[pieces(starts, lengths)], lengths


def _gaps(times: _Ints | None, row: _Ints, lengths: _Ints) -> NDArray[np.float32]:
    """Return seconds since the step before, (S,): 0 at the first of a row, NaN where not known."""
    gap = gaps(times, lengths)
    if times is not None:
        known = times != NULL_TIME
        both = known.copy()
        both[1:] &= known[:-1] | (row[1:] != row[:-1])
        gap[~both] = np.nan
    return gap


def _microseconds(
    values: pa.Array, form: TimeForm, row: _Ints, files: TableFiles, origin: RequestOrigin
) -> _Ints:
    """Return (T,) microseconds, `NULL_TIME` where null; `row` (T,) is the request of each."""
    ledger = Ledger(files, trained=True)
    raw = raw_times(Cells(TIMES, values, origin.first_row + row, ledger), form)
    ledger.check()
    known = raw != NULL_TIME
    return np.where(known, microseconds(np.where(known, raw, 0), form.unit), NULL_TIME)


def _in_unit(time: _Ints, unit: TimeUnit) -> pa.Array:
    """Return microseconds as the schema's column holds them."""
    if unit == "datetime":
        return pa.array(time, pa.timestamp("us", "UTC"))
    ticks = UNITS[unit]
    return pa.array(
        time // (1_000_000 // ticks) if ticks <= 1_000_000 else time * (ticks // 1_000_000)
    )


def _chosen(
    table: pa.Table, name: str, size: _Ints, steps: _Ints, origin: RequestOrigin
) -> pa.Array:
    """Return the values of chosen steps, (S,); null where the row has no list.

    Args:
        table: B requests.
        name: the column of lists.
        size: (B,) lengths of the histories.
        steps: (S,) numbers of the steps among those of all histories.
        origin: of the requests.
    """
    column = table.column(name).combine_chunks()
    if pa.types.is_null(column.type):
        return pa.nulls(len(steps))
    if not is_list(column.type):
        raise origin.error(
            f"{column.type}, where a list is expected",
            name,
            remedy="write a list, one value for each item of the history",
        )
    given, lengths = np.asarray(column.is_valid()), _lengths(table, name)
    wrong = np.flatnonzero(given & (lengths != size))
    if len(wrong):
        raise origin.error(
            f"{lengths[wrong[0]]} values, but the history has {size[wrong[0]]} items",
            name,
            wrong[0],
            remedy="the two go together one by one: put null where a value is not known, or null "
            "for the whole list",
        )
    row = np.repeat(np.arange(len(size)), size)[steps]
    ends, starts = np.cumsum(size), np.cumsum(lengths) - lengths
    place = steps - (ends - size)[row]
    return column.flatten().take(pa.array(starts[row] + place, mask=~given[row]))


def _lengths(table: pa.Table, name: str) -> _Ints:
    """Return the length of each row's list, (B,), 0 where null."""
    column = table.column(name).combine_chunks()
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    return np.asarray(pc.list_value_length(column).fill_null(0)).astype(np.int64)
