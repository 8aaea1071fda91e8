"""Sessions: cut as a loop over each user's events cuts them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import (
    SessionConfig,
    Sessions,
    cut_sessions,
    gaps,
    history_of,
    pieces,
    sessions_of,
)
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

SessionData = Callable[..., Dataset]
# (user, minute, session): minutes and sessions collide often.
EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 90), st.integers(0, 2)), min_size=1, max_size=40
)


def lists(sessions: Sessions) -> list[list[int]]:
    return [one.tolist() for one in np.split(sessions.order, sessions.offsets[1:-1])]


def columns(events: list[tuple[int, int, int]]) -> tuple[list[int], list[int], list[int]]:
    users, minutes, visits = zip(*sorted(events, key=lambda one: one[:2]), strict=True)
    return list(users), [minute * 60 for minute in minutes], list(visits)


@given(EVENTS, st.sampled_from([1.0, 7.5, 30.0]))
def test_a_longer_pause_ends_a_session(
    session_data: SessionData, events: list[tuple[int, int, int]], minutes: float
) -> None:
    users, seconds, _ = columns(events)
    data = session_data(users, range(len(users)), time=seconds)
    expected: list[list[int]] = []
    for number, (user, second) in enumerate(zip(users, seconds, strict=True)):
        goes_on = number > 0 and users[number - 1] == user
        if not goes_on or second - seconds[number - 1] > minutes * 60:
            expected.append([])
        expected[-1].append(number)
    sessions = cut_sessions(data, SessionConfig(inactivity_minutes=minutes))
    assert lists(sessions) == expected
    assert sessions.user.tolist() == [users[one[0]] for one in expected]
    assert sessions.lengths().tolist() == [len(one) for one in expected]


@given(EVENTS)
def test_a_session_column_gathers_the_rows_of_a_user_that_lie_apart(
    session_data: SessionData, events: list[tuple[int, int, int]]
) -> None:
    users, seconds, visits = columns(events)
    data = session_data(users, range(len(users)), time=seconds, session=visits)
    expected: dict[tuple[int, int], list[int]] = {}  # by user, then first event
    for number, key in enumerate(zip(users, visits, strict=True)):
        expected.setdefault(key, []).append(number)
    sessions = cut_sessions(data, SessionConfig())
    assert lists(sessions) == list(expected.values())
    assert sessions.user.tolist() == [user for user, _ in expected]


def test_interleaved_sessions_and_one_id_of_two_users(session_data: SessionData) -> None:
    data = session_data([0, 0, 0, 0, 1, 1], range(6), session=[7, 3, 7, 3, 3, 7])
    sessions = cut_sessions(data, SessionConfig())
    assert lists(sessions) == [[0, 2], [1, 3], [4], [5]]
    assert sessions.owner().tolist() == [0, 1, 0, 1, 2, 3]


def test_a_user_is_one_session_where_nothing_says_otherwise(session_data: SessionData) -> None:
    data = session_data([2, 2, 0, 2], range(4))
    sessions = cut_sessions(data, SessionConfig())
    assert lists(sessions) == [[0], [1, 2, 3]]
    assert sessions.user.tolist() == [0, 2]
    assert sessions.owner().tolist() == [0, 1, 1, 1]


@given(EVENTS, st.integers(0, 90))
def test_later_events_change_no_earlier_cut(
    session_data: SessionData, events: list[tuple[int, int, int]], cut: int
) -> None:
    users, seconds, visits = columns(events)
    early = [number for number, second in enumerate(seconds) if second < cut * 60]
    if not early:
        return
    for config, named in ((SessionConfig(inactivity_minutes=10), None), (SessionConfig(), visits)):
        whole = cut_sessions(
            session_data(users, range(len(users)), time=seconds, session=named), config
        )
        some = cut_sessions(
            session_data(
                [users[n] for n in early],
                range(len(early)),
                time=[seconds[n] for n in early],
                session=None if named is None else [named[n] for n in early],
            ),
            config,
        )
        kept = whole.only(np.isin(np.arange(len(users)), early))
        assert lists(kept) == [[early[n] for n in one] for one in lists(some)]
        assert kept.user.tolist() == some.user.tolist()


def test_what_cannot_be_cut_is_refused(session_data: SessionData) -> None:
    pause = SessionConfig(inactivity_minutes=30)
    with pytest.raises(ConfigError, match=r"inactivity_minutes needs schema\.interactions\.time"):
        cut_sessions(session_data([0, 0], [0, 1]), pause)
    with pytest.raises(ConfigError, match=r"inactivity_minutes is set, but the column 'visit'"):
        cut_sessions(session_data([0, 0], [0, 1], time=[1, 2], session=[0, 0]), pause)
    with pytest.raises(ValueError, match="greater than 0"):
        SessionConfig(inactivity_minutes=0)


def test_gaps_are_seconds_within_a_row(session_data: SessionData) -> None:
    time = np.array([10, 12, 12, 500, 9, 9, 10]) * 1_000_000 + 500_000
    lengths = np.array([3, 0, 1, 0, 3, 0])
    assert gaps(time, lengths).tolist() == [0, 2, 0, 0, 0, 0, 1]
    assert np.isnan(gaps(None, np.array([2, 1]))).tolist() == [True] * 3
    none = np.zeros(0, np.int64)
    assert gaps(none, np.array([0, 0])).tolist() == []
    assert pieces(np.array([4, 9, 0]), np.array([2, 0, 3])).tolist() == [4, 5, 0, 1, 2]
    data = session_data([0] * 4, [3, 1, 1, 0], time=[5, 6, 8, 4000])
    history = history_of(data, np.array([3, 0, 2]), np.array([1, 2]))
    assert history.items.values.tolist() == [0, 3, 1]
    assert history.items.offsets.tolist() == [0, 1, 3]
    assert history.gap.tolist() == [0, 0, 3]
    assert torch.equal(history.features.single, data.context.single[[3, 0, 2]])
    without = history_of(session_data([0, 0], [1, 0]), np.array([0, 1]), np.array([2]))
    assert without.gap.isnan().all()


VISITS: list[tuple[str, Any, list[int]]] = [
    ("text", ["a", "b", "a", "c", "b"], [0, 1, 0, 2, 1]),
    ("words", pa.array(["a", "b", "a", "c", "b"]).dictionary_encode(), [0, 1, 0, 2, 1]),
    ("whole numbers", [9, 2**60, 9, 2**60 + 1, 2**60], [0, 1, 0, 2, 1]),
    ("unsigned", pa.array([9, 2**63, 9, 2**63 + 1, 2**63], pa.uint64()), [0, 1, 0, 2, 1]),
]


@pytest.mark.parametrize(("name", "visits", "same"), VISITS, ids=[one[0] for one in VISITS])
def test_sessions_of_any_id_are_read_and_follow_their_rows(
    read_shop: Callable[..., Tables], name: str, visits: Any, same: list[int]
) -> None:
    # The log is sorted by user and time, so the rows of the file are out of order here.
    log = {"visit": visits, "user": [3, 1, 2, 1, 2]}
    events = read_shop(log=log, roles={"session": "visit"}).events
    assert events.session is not None
    codes = dict(zip(events.row.tolist(), events.session.tolist(), strict=True))
    for one in range(5):
        for other in range(5):
            assert (codes[one] == codes[other]) == (same[one] == same[other])
    taken = events.take(np.array([4, 1])).session
    assert taken is not None
    assert taken.tolist() == events.session[[4, 1]].tolist()


def test_rows_without_a_session_leave_where_a_policy_says_so(
    read_shop: Callable[..., Tables],
) -> None:
    tables = read_shop(
        log={"visit": [5, None, 5, 6, None]},
        roles={"session": "visit"},
        policies={"bad_ids": "drop"},
    )
    events = tables.events
    assert events.row.tolist() == [0, 2, 3]
    assert events.session is not None
    assert (events.session[:2] == events.session[0]).all()
    assert events.session[2] != events.session[0]
    (drop,) = tables.drops
    assert (drop.column, drop.reason, drop.rows) == ("visit", "the id is null", 2)


def test_sessions_go_with_the_rows_that_other_policies_drop(
    read_shop: Callable[..., Tables],
) -> None:
    events = read_shop(
        log={"visit": [4, 5, 6, 7, 8], "item": [99, 10, 10, 12, 11]},
        roles={"session": "visit", "where": [{"column": "weight", "at_most": 1.5}]},
        policies={"unknown_items": "drop"},
    ).events
    assert events.row.tolist() == [2, 3, 4]
    assert events.session is not None
    assert len(events.session) == len(set(events.session.tolist())) == 3


def test_numbers_of_sessions_in_a_csv_are_one_type(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    schema = Schema.model_validate_json(
        '{"interactions": {"user": "user", "item": "item", "session": "visit"}, "features": '
        '[{"name": "item", "table": "items", "kind": "categorical"}]}'
    )
    path.write_text("user,item,visit\n1,1,7\n1,2,7.0\n1,3,8\n")
    with pytest.raises(DataError, match=r"row 2, column 'visit': ids came as floats, '7.0'"):
        read_tables(schema, Sources(interactions=str(path)), Policies())
    kept = read_tables(schema, Sources(interactions=str(path)), Policies(float_ids="integer"))
    session = kept.events.session
    assert session is not None
    assert session[0] == session[1] != session[2]


def test_sessions_in_words(session_data: SessionData) -> None:
    data = session_data([0, 1, 2, 2, 2, 3, 3, 3, 3], range(9))
    assert cut_sessions(data, SessionConfig()).in_words() == (
        "4 sessions: half have at most 1 rows, 99 % at most 3; 50.0% are of a single row"
    )


@given(EVENTS, st.sampled_from([None, 7.5]), st.integers(0, 3))
def test_steps_are_tied_with_the_step_before_in_their_session(
    session_data: SessionData,
    events: list[tuple[int, int, int]],
    minutes: float | None,
    left_out: int,
) -> None:
    users, seconds, visits = columns(events)
    session = visits if minutes is None else None
    data = session_data(users, range(len(users)), time=seconds, session=session)
    cut = cut_sessions(data, SessionConfig(inactivity_minutes=minutes))
    for sessions in (cut, cut.only(np.arange(len(users)) % 4 != left_out)):
        steps = [
            seconds[after] == seconds[before]
            for one in lists(sessions)
            for before, after in pairwise(one)
        ]
        assert sessions.tied() == (sum(steps) / len(steps) if steps else 0)


@pytest.mark.parametrize(("ties", "is_said"), [(0, False), (1, False), (2, True), (20, True)])
def test_many_ties_are_said_in_words(session_data: SessionData, ties: int, is_said: bool) -> None:
    # Twenty steps of user 0 have one before them; that of user 1, as early as user 0's, has none.
    time = [0, *([0] * ties), *range(1, 21 - ties), 0]
    sessions = cut_sessions(session_data([0] * 21 + [1], range(22), time=time), SessionConfig())
    assert sessions.tied() == ties / 20
    words = sessions.in_words()
    assert words.startswith("2 sessions: half have at most 1 rows, 99 % at most 1; 50.0% are of")
    assert ("schema.interactions.order" in words) == is_said
    assert (f"{ties / 20:.1%} of the steps have the time" in words) == is_said


def test_without_a_clock_no_step_is_tied_but_equal_orders_are(
    session_data: SessionData, read_shop: Callable[..., Tables]
) -> None:
    assert cut_sessions(session_data([0] * 9, range(9)), SessionConfig()).tied() == 0
    roles = {"order": "place_in_visit", "time": None}
    log = {"user": [1, 1, 1, 2, 2], "place_in_visit": [0, 0, 1, 4, 4]}
    events = read_shop(log=log, roles=roles).events
    raw = {"user": "user", "item": "item", "order": "place_in_visit"}
    features = [{"name": "item", "table": "items", "kind": "categorical"}]
    schema = Schema.model_validate({"interactions": raw, "features": tuple(features)})
    assert sessions_of(schema, events, SessionConfig()).tied() == 2 / 3
