"""Requests with steps: what was trained on comes back from a table of requests, or an error."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.data.batch import History
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, cut_sessions, sessions_of
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.steps import refuse_unknown_columns, since_the_last_pause
from recsys.features.requests.table import Requests, encode_requests, request_table
from recsys.features.schema import Schema
from recsys.features.table_roles import TimeColumn
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import NULL_TIME

SessionData = Callable[..., Dataset]
PAUSE = SessionConfig(inactivity_minutes=5)
CONTEXT: tuple[dict[str, Any], ...] = (
    {"name": "price", "table": "interactions", "kind": "numeric"},
    {"name": "tags", "table": "interactions", "kind": "multi_categorical"},
    {"name": "device", "table": "interactions", "kind": "categorical"},
)


def random_log(session_data: SessionData, seed: int, **changes: Any) -> Dataset:
    rng = np.random.default_rng(seed)
    time = rng.integers(1, 4_000, 80)
    logged = {
        "time": time.tolist(),
        "part": np.searchsorted([2_000, 2_900], time, side="right").tolist(),
        "features": CONTEXT,
        "context": {
            "price": [None if k % 4 == 0 else k / 7 for k in range(80)],
            "tags": [["a", "b", "c"][: k % 4] for k in range(80)],
            "device": pa.array(
                [["phone", None, "desk"][k % 3] for k in range(80)]
            ).dictionary_encode(),
        },
    }
    users, items = rng.integers(0, 6, 80).tolist(), rng.integers(0, 15, 80).tolist()
    return session_data(users, items, **{**logged, **changes}, num_items=17)


def requests_of(data: Dataset, config: SessionConfig, users: Any) -> pa.Table:
    """Return the requests of `users` as they would be before the test part."""
    known = data.events_of((TRAIN, VALIDATION))
    earlier = replace(data.tables, events=data.tables.events.take(known))
    sessions = sessions_of(data.schema, earlier.events, config)
    histories = data.histories((TRAIN, VALIDATION))
    return request_table(data.schema, earlier, histories, users, sessions=sessions)


def encode(data: Dataset, table: pa.Table, history_length: int = 4) -> Requests:
    ids = data.tables.items.column("item").combine_chunks()
    return encode_requests(
        data.encoder, ids, table, history_length=history_length, steps=True, policies=Policies()
    )


def in_unit(data: Dataset, unit: Any) -> Dataset:
    """Return `data` with another unit declared for its times."""
    time = TimeColumn(column="time", unit=unit)
    roles = data.schema.interactions.model_copy(update={"time": time})
    schema = data.schema.model_copy(update={"interactions": roles})
    return replace(data, schema=schema, encoder=replace(data.encoder, schema=schema))


def assert_same(one: Any, other: Any) -> None:
    assert isinstance(one, History)
    assert isinstance(other, History)
    assert torch.equal(one.items.values, other.items.values)
    assert torch.equal(one.items.offsets, other.items.offsets)
    assert torch.equal(one.features.single, other.features.single)
    assert torch.equal(one.features.dense, other.features.dense)
    for mine, theirs in zip(one.features.multi, other.features.multi, strict=True):
        assert torch.equal(mine.values, theirs.values)
        assert torch.equal(mine.offsets, theirs.offsets)
    assert torch.equal(one.gap.nan_to_num(-1), other.gap.nan_to_num(-1))


@settings(max_examples=25)
@given(st.integers(0, 100), st.booleans(), st.integers(1, 9))
def test_a_request_says_what_the_query_of_the_same_cut_says(
    session_data: SessionData, seed: int, whole_users: bool, history_length: int
) -> None:
    data = random_log(session_data, seed)
    config = SessionConfig() if whole_users else PAUSE
    sessions = cut_sessions(data, config)
    queries = build_session_queries(
        data,
        sessions,
        TEST,
        per="user",
        history_length=history_length,
        filter_seen=False,
        limit=100,
        seed=0,
    )
    events, test = data.tables.events, data.events_of((TEST,))
    before, owner = data.events_of((TRAIN, VALIDATION)), sessions.owner()
    goes_on = []  # the session in which the part begins is the user's last one before it
    for row, user in enumerate(queries.users):
        mine = before[events.user_row[before] == user]
        if len(mine) and owner[mine[-1]] == owner[test[events.user_row[test] == user][0]]:
            goes_on.append(row)
    assert goes_on or not whole_users
    asked = queries.take(torch.tensor(goes_on, dtype=torch.int64))
    table = requests_of(data, config, asked.users)
    found = encode(data, table, history_length)
    assert_same(found.history, asked.history)
    assert torch.equal(found.block.single, asked.block.single)
    assert torch.equal(found.seen.values, asked.seen.values)
    assert torch.equal(found.seen.offsets, asked.seen.offsets)
    lengths = [len(one) for one in table.column("history").to_pylist()]
    assert found.num_events.tolist() == lengths
    assert found.unknown_items == 0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "datetime"])
def test_times_are_in_the_unit_of_the_schema(session_data: SessionData, unit: Any) -> None:
    data = random_log(session_data, 1)
    other = in_unit(data, unit)
    histories, users = data.histories((TRAIN, VALIDATION, TEST)), np.arange(data.num_users)
    sessions = cut_sessions(data, PAUSE)
    table = request_table(other.schema, data.tables, histories, users, sessions=sessions)
    events = data.tables.events
    factor = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
    for user, times in enumerate(table.column("history_times").to_pylist()):
        last = int(events.time[events.user_row == user][-1]) // 1_000_000
        wanted = datetime.fromtimestamp(last, UTC) if unit == "datetime" else last * factor[unit]
        assert times[-1] == wanted
    plain = request_table(data.schema, data.tables, histories, users, sessions=sessions)
    assert_same(encode(other, table).history, encode(data, plain).history)


def test_a_request_of_a_user_without_events_has_no_history(session_data: SessionData) -> None:
    data = session_data([1, 1, 3, 3], [0, 1, 2, 0], time=[5, 9, 7, 900], part=[0, 0, 0, 0])
    sessions = cut_sessions(data, PAUSE)
    users = np.array([3, 0, 1])
    table = request_table(
        data.schema, data.tables, data.histories((TRAIN,)), users, sessions=sessions
    )
    assert table.column("history").to_pylist() == [[0], [], [0, 1]]
    assert table.column("seen").to_pylist() == [[2, 0], [], [0, 1]]
    assert table.column("history_times").to_pylist() == [[900], [], [5, 9]]
    found = encode(data, table)
    assert isinstance(found.history, History)
    assert found.history.lengths().tolist() == [1, 0, 2]
    assert found.history.gap.tolist() == [0, 0, 4]


def test_the_last_session_is_that_of_the_last_event(session_data: SessionData) -> None:
    data = session_data([0] * 4, [0, 1, 2, 3], time=[1, 2, 3, 4], session=[5, 6, 6, 5])
    sessions = cut_sessions(data, SessionConfig())
    histories = data.histories((TRAIN,))
    table = request_table(data.schema, data.tables, histories, np.array([0]), sessions=sessions)
    assert table.column("history").to_pylist() == [[0, 3]]


def simple(data: Dataset, **columns: Any) -> pa.Table:
    return pa.table({"user": [0, 1], "history": [[3, 99, 4, 5], [7]], **columns})


def test_steps_of_unknown_items_go_with_all_that_is_known_of_them(
    session_data: SessionData,
) -> None:
    data = random_log(session_data, 0)
    table = simple(
        data,
        history_price=[[1.0, 50.0, None, 2.0], [3.0]],
        history_tags=[[["a"], ["b"], [], ["c", "a"]], None],
        history_times=[[100, 120, 150, 155], [9]],
    )
    found = encode(data, table, 3)
    assert isinstance(found.history, History)
    assert found.unknown_items == 1
    assert found.num_events.tolist() == [3, 1]
    assert found.history.items.values.tolist() == [3, 4, 5, 7]
    assert found.history.gap.tolist() == [0, 50, 5, 0]
    wanted = data.encoder.encode(
        "interactions",
        pa.table({"price": [1.0, None, 2.0, 3.0], "tags": [["a"], [], ["c", "a"], None]}),
    )
    assert torch.equal(found.history.features.dense, wanted.dense)
    assert torch.equal(found.history.features.multi[0].values, wanted.multi[0].values)
    assert torch.equal(found.history.features.single, wanted.single)  # serial and device: null
    short = encode(data, table, 2)
    assert isinstance(short.history, History)
    assert short.history.items.values.tolist() == [4, 5, 7]
    assert short.history.gap.tolist() == [0, 5, 0]


def test_what_is_absent_is_not_known(session_data: SessionData) -> None:
    data = random_log(session_data, 0)
    plain = encode(data, simple(data))
    assert isinstance(plain.history, History)
    nothing = data.encoder.encode("interactions", pa.table({"none": pa.nulls(4)}))
    assert torch.equal(plain.history.features.single, nothing.single)
    assert torch.equal(plain.history.features.dense, nothing.dense)
    assert plain.history.gap.isnan().all()
    nulls = {f"history_{name}": pa.nulls(2) for name in ("times", "price", "device")}
    assert_same(encode(data, simple(data, **nulls)).history, plain.history)
    empty = pa.table({"user": [0], "history": pa.nulls(1)})
    assert len(encode(data, empty).history) == 1
    some = encode(data, simple(data, history_times=[[5, 6, None, 8], None]))
    assert isinstance(some.history, History)
    assert some.history.gap.nan_to_num(-1).tolist() == [0, -1, -1, -1]
    first = encode(data, simple(data, history_times=[[None, 6, 7, 9], [4]]))
    assert isinstance(first.history, History)
    assert first.history.gap.nan_to_num(-1).tolist() == [-1, -1, 2, 0]


def test_times_are_not_read_where_training_knew_none(session_data: SessionData) -> None:
    data = session_data([0, 0, 1], [0, 1, 2])
    table = pa.table({"user": [0], "history": [[0, 1]], "history_times": [[5, 9]]})
    found = encode(data, table)
    assert isinstance(found.history, History)
    assert found.history.gap.isnan().all()
    sessions = cut_sessions(data, SessionConfig())
    asked = request_table(
        data.schema, data.tables, data.histories((TRAIN,)), np.array([0]), sessions=sessions
    )
    assert "history_times" not in asked.column_names


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "short list": (
        {"history_price": [[1.0, 2.0, 3.0, 4.0], []]},
        r"row 2, column 'history_price': 0 values, but the history has 1 items",
    ),
    "no list": (
        {"history_price": [1.0, 2.0]},
        r"column 'history_price': double, where a list is expected; write a list",
    ),
    "short times": (
        {"history_times": [[1, 2], [3]]},
        r"row 1, column 'history_times': 2 values, but the history has 4 items",
    ),
    "times go back": (
        {"history_times": [[1, 2], [6, 5]], "history": [[3, 4], [7, 8]]},
        r"row 2, column 'history_times': the times go back, but a history is oldest first",
    ),
    "text for a time": (
        {"history_times": [["a"] * 4, ["b"]]},
        r"requests row 1, column 'history_times': 'a', where a whole number is expected",
    ),
    "times go back before the steps that are read": (
        {"history_times": [[9, 8, 10, 11], [5]]},
        r"row 1, column 'history_times': the times go back",
    ),
    "times go back around one that is not known": (
        {"history_times": [[9, None, 8, 11], [5]]},
        r"row 1, column 'history_times': the times go back",
    ),
    "a misspelt column": (
        {"history_prise": [[1.0] * 4, [2.0]]},
        r"'history_prise'.*no such column \(did you mean 'history_price'\?\); .* history_times, ",
    ),
    "values that are no numbers": (
        {"history_price": [["a"] * 4, ["b"]]},
        r"requests row 1, column 'history_price': 'a', where a number is expected",
    ),
    "words for a number": (
        {"history_device": [[1, 2, 3, 4], [5]]},
        r"requests row 1, column 'history_device': holds integer values, the model was trained on",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_steps_are_refused(session_data: SessionData, name: str) -> None:
    columns, message = BAD[name]
    data = random_log(session_data, 0)
    with pytest.raises(DataError, match=message):
        encode(data, pa.table(simple(data).to_pydict() | columns))


def test_text_that_is_no_time_is_named(session_data: SessionData) -> None:
    data = random_log(session_data, 0)
    table = simple(data, history_times=[["2024-01-01", "2024-01-02", "x", "2024-01-03"], None])
    with pytest.raises(
        DataError, match=r"row 1, column 'history_times': not a date or a time, 'x'; write ISO"
    ):
        encode(in_unit(data, "datetime"), table)
    whole = simple(data, history_times=[[1, 2, 3, 4], [5]])
    with pytest.raises(DataError, match=r"declared as datetime, but the column is int64"):
        encode(in_unit(data, "datetime"), whole)
    dates = simple(
        data, history_times=[["2024-01-01", "2024-01-01T00:01Z", None, "2024-01-02"], []]
    )
    with pytest.raises(DataError, match="row 2, column 'history_times': 0 values"):
        encode(in_unit(data, "datetime"), dates)
    dates = simple(data, history_times=[["2024-01-01"] * 3 + ["2024-01-01T00:01Z"], None])
    found = encode(in_unit(data, "datetime"), dates).history
    assert isinstance(found, History)
    assert found.gap.nan_to_num(-1).tolist() == [0, 0, 60, -1]


def whole_log_as_request(data: Dataset, table: pa.Table) -> pa.Table:
    """Return one request a row of `table` with all that the log holds of its user."""
    events, ids = data.tables.events, data.tables.items.column("item").to_pylist()
    rows = []
    for user in range(table.num_rows):
        mine = np.flatnonzero(events.user_row == user)
        rows.append([(ids[events.item_row[n]], int(events.time[n]) // 1_000_000) for n in mine])
    columns = {
        "user": table.column("user"),
        "history": [[item for item, _ in row] for row in rows],
        "history_times": [[time for _, time in row] for row in rows],
    }
    return pa.table(columns)


@pytest.mark.parametrize("seed", range(3))
def test_a_whole_log_as_a_request_is_cut_to_its_last_session(
    session_data: SessionData, seed: int
) -> None:
    data = random_log(session_data, seed, features=[], context={})
    users, histories = np.arange(data.num_users), data.histories((TRAIN, VALIDATION, TEST))
    sessions = cut_sessions(data, PAUSE)
    last = request_table(data.schema, data.tables, histories, users, sessions=sessions)
    last = last.drop_columns(["history_serial"])
    whole = whole_log_as_request(data, last)
    ids = data.tables.items.column("item").combine_chunks()
    shape: dict[str, Any] = {"history_length": 4, "steps": True, "policies": Policies()}
    cut = encode_requests(data.encoder, ids, whole, **shape, inactivity_minutes=5)
    wanted = encode(data, last)
    assert_same(cut.history, wanted.history)
    assert torch.equal(cut.num_events, wanted.num_events)
    assert torch.equal(cut.seen.values, wanted.seen.values)  # all of it, not the last session alone
    assert torch.equal(cut.seen.offsets, wanted.seen.offsets)
    uncut = encode(data, whole)
    assert (uncut.num_events > cut.num_events).any()
    untimed = whole.drop_columns(["history_times"])
    left = encode_requests(data.encoder, ids, untimed, **shape, inactivity_minutes=5)
    assert torch.equal(left.num_events, uncut.num_events)


NO_TIME = NULL_TIME // 60_000_000


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [
        ([0, 5, 11, 12], "0011"),  # six minutes are longer than five, five are not
        ([0, 6, 12, 17], "0011"),
        ([0, 5, 10, 15], "1111"),
        ([0, NO_TIME, 60, 61], "1111"),  # where the pause was is not known
        ([0, 60, NO_TIME, NO_TIME], "0111"),
        ([], ""),
    ],
)
def test_what_lies_before_the_last_pause_is_cut(minutes: list[int], kept: str) -> None:
    times = np.array([NULL_TIME if m == NO_TIME else m * 60_000_000 for m in minutes], np.int64)
    row = np.zeros(len(times), np.int64)
    assert since_the_last_pause(times, row, 5).tolist() == [one == "1" for one in kept]
    # Between two requests there is no pause, however far apart they lie.
    later = np.where(times == NULL_TIME, NULL_TIME, times + 10**12)
    both = since_the_last_pause(np.append(times, later), np.append(row, row + 1), 5)
    assert both.tolist() == [one == "1" for one in kept * 2]


def test_unknown_items_count_for_pauses_and_the_first_is_named(session_data: SessionData) -> None:
    data = random_log(session_data, 0)
    ids = data.tables.items.column("item").combine_chunks()
    # The pause lies between 3 and 99, which the catalogue lacks: 99 begins the last session.
    table = simple(data, history_times=[[0, 600, 700, 710], [5]])
    found = encode_requests(
        data.encoder,
        ids,
        table,
        history_length=4,
        steps=True,
        policies=Policies(),
        inactivity_minutes=5,
    )
    assert isinstance(found.history, History)
    assert found.history.items.values.tolist() == [4, 5, 7]
    assert (found.unknown_items, found.first_unknown) == (1, 99)


def test_an_error_names_file_and_row_of_the_file(session_data: SessionData) -> None:
    data = random_log(session_data, 0)
    ids = data.tables.items.column("item").combine_chunks()
    table = simple(data, history_times=[[1, 2, 3, 4], [5, 6]])
    with pytest.raises(DataError, match=r"^asked\.parquet row 72, column 'history_times': 2 val"):
        encode_requests(
            data.encoder,
            ids,
            table,
            history_length=4,
            steps=True,
            policies=Policies(),
            origin=RequestOrigin("asked.parquet", 70),
        )


def test_a_user_attribute_may_be_named_like_a_step(session_data: SessionData) -> None:
    data = random_log(session_data, 0)
    raw = data.schema.model_dump(mode="json")
    raw["users"] = {"key": "user"}
    raw["features"].append({"name": "history_size", "table": "users", "kind": "numeric"})
    schema = Schema.model_validate_json(json.dumps(raw))
    refuse_unknown_columns(schema, ["user", "history", "history_size"], RequestOrigin())
    with pytest.raises(DataError, match="history_sizes"):
        refuse_unknown_columns(schema, ["history_sizes"], RequestOrigin())


def test_a_column_that_would_be_taken_for_the_times_is_refused(session_data: SessionData) -> None:
    data = session_data(
        [0, 0, 1],
        [0, 1, 2],
        features=[{"name": "times", "table": "interactions", "kind": "numeric"}],
        context={"times": [1.0, 2.0, 3.0]},
    )
    with pytest.raises(ConfigError, match=r"in 'history_times', .*rename the column"):
        encode(data, pa.table({"user": [0], "history": [[1]]}))
