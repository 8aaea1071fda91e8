"""Queries of sessions: what loops over the log find, and nothing that came later."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batch import History, Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, Sessions, cut_sessions
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.encoding.hashing import hash_values

SessionData = Callable[..., Dataset]


def random_log(session_data: SessionData, seed: int, *, by_time: bool) -> Dataset:
    """Interleaved sessions with many equal stamps; parts by time, or without any order."""
    rng = np.random.default_rng(seed)
    time = rng.integers(1, 30, 80)
    part = np.searchsorted([16, 22], time, side="right") if by_time else rng.integers(0, 3, 80)
    return session_data(
        rng.integers(0, 5, 80).tolist(),
        rng.integers(0, 15, 80).tolist(),
        time=time.tolist(),
        session=rng.integers(0, 3, 80).tolist(),
        part=part.tolist(),
    )


def session_of(data: Dataset) -> list[tuple[int, int]]:
    events = data.tables.events
    assert events.session is not None
    return list(zip(events.user_row.tolist(), events.session.tolist(), strict=True))


def ask(data: Dataset, part: int, per: Any, **changes: Any) -> Queries:
    settings = {"history_length": 3, "filter_seen": False, "limit": 1000, "seed": 0, **changes}
    return build_session_queries(
        data, cut_sessions(data, SessionConfig()), part, per=per, **settings
    )


def rows(jagged: Jagged) -> list[list[int]]:
    bounds = jagged.offsets.tolist()
    return [jagged.values[a:b].tolist() for a, b in pairwise(bounds)]


def steps(data: Dataset, queries: Queries) -> list[list[int]]:
    """Return the event numbers of each history, found by their feature `serial`."""
    assert isinstance(queries.history, History)
    serial = hash_values(data.tables.events.context.column("serial")).tolist()
    history = queries.history
    events = torch.tensor(
        [serial.index(one) for one in history.features.single[:, 0].tolist()], dtype=torch.int64
    )
    assert torch.equal(history.features.single, data.context.single[events])
    items = data.tables.events.item_row[events.numpy()].tolist()
    assert history.items.values.tolist() == items
    assert queries.history_items is history.items
    found = rows(Jagged(events, history.items.offsets))
    time = data.tables.events.time / 1e6
    passed = [
        0.0 if n == 0 else time[e] - time[one[n - 1]] for one in found for n, e in enumerate(one)
    ]
    assert history.gap.tolist() == passed
    return found


@settings(max_examples=40)
@given(st.integers(0, 30), st.booleans(), st.booleans(), st.sampled_from([VALIDATION, TEST]))
def test_a_query_an_event(
    session_data: SessionData, seed: int, by_time: bool, filter_seen: bool, part: int
) -> None:
    data = random_log(session_data, seed, by_time=by_time)
    events, session = data.tables.events, session_of(data)
    queries = ask(data, part, "event", filter_seen=filter_seen)
    expected = []
    for number in np.flatnonzero(data.part == part).tolist():
        earlier = [n for n in range(number) if data.part[n] <= part]
        mine = [n for n in earlier if events.user_row[n] == events.user_row[number]]
        before = [n for n in mine if session[n] == session[number]]
        seen, item = events.item_row[mine].tolist(), int(events.item_row[number])
        if before and not (filter_seen and item in seen):
            expected.append((int(events.user_row[number]), before[-3:], seen, [item]))
    found = zip(
        queries.users.tolist(),
        steps(data, queries),
        rows(queries.seen),
        rows(queries.relevant),
        strict=True,
    )
    assert list(found) == expected
    assert torch.equal(queries.block.single, data.users.single[queries.users])


@settings(max_examples=40)
@given(st.integers(0, 30), st.booleans(), st.booleans(), st.sampled_from([VALIDATION, TEST]))
def test_a_query_a_user(
    session_data: SessionData, seed: int, by_time: bool, filter_seen: bool, part: int
) -> None:
    data = random_log(session_data, seed, by_time=by_time)
    events, session = data.tables.events, session_of(data)
    queries = ask(data, part, "user", filter_seen=filter_seen)
    expected = []
    for user in range(data.num_users):
        mine = np.flatnonzero(events.user_row == user).tolist()
        before = [n for n in mine if data.part[n] < part]
        after = [n for n in mine if data.part[n] == part]
        seen = events.item_row[before].tolist()
        relevant = set(events.item_row[after].tolist()) - set(seen if filter_seen else [])
        if relevant:
            own = [n for n in before if session[n] == session[after[0]]]
            expected.append((user, own[-3:], seen, sorted(relevant)))
    found = zip(
        queries.users.tolist(),
        steps(data, queries),
        rows(queries.seen),
        rows(queries.relevant),
        strict=True,
    )
    assert list(found) == expected
    assert torch.equal(queries.block.single, data.users.single[queries.users])


def test_without_sessions_a_user_is_asked_as_by_the_two_tower(dataset: Dataset) -> None:
    whole = Sessions(
        np.arange(len(dataset.tables.events)),
        np.append(np.flatnonzero(np.diff(dataset.tables.events.user_row, prepend=-1)), 4_000),
        np.unique(dataset.tables.events.user_row).astype(np.int64),
    )
    shape = {"history_length": 5, "filter_seen": True, "limit": 40, "seed": 3}
    pairs = build_queries(dataset, TEST, **shape)  # type: ignore[arg-type]
    ours = build_session_queries(dataset, whole, TEST, per="user", **shape)  # type: ignore[arg-type]
    assert ours.users.tolist() == pairs.users.tolist()
    for name in ("history_items", "seen", "relevant"):
        assert rows(getattr(ours, name)) == rows(getattr(pairs, name))


def test_later_events_change_no_query(session_data: SessionData) -> None:
    """Each query of an event is the same where the log ends with that event."""
    rng = np.random.default_rng(5)
    user, item, visit = (rng.integers(0, k, 40).tolist() for k in (2, 9, 2))
    time, part = list(range(1, 41)), [0] * 20 + [2] * 20

    def last(count: int, per: str) -> Any:
        data = session_data(
            user[:count],
            item[:count],
            time=time[:count],
            session=visit[:count],
            part=part[:count],
            num_items=9,
        )
        queries = ask(data, TEST, per)
        return data, queries

    data, whole = last(40, "event")
    asked = np.flatnonzero(data.part == TEST).tolist()
    assert len(asked) == len(whole)
    histories = dict(zip(range(len(whole)), rows(whole.history_items), strict=True))
    serial = data.tables.events.context.column("serial").to_pylist()
    for query, number in enumerate(asked):
        count = serial[number] + 1  # the log up to and with this event
        _, queries = last(count, "event")
        at = int(np.flatnonzero(queries.users == user[count - 1])[-1])
        assert rows(queries.history_items)[at] == histories[query]


def test_at_most_so_many_queries_are_drawn(session_data: SessionData) -> None:
    data = random_log(session_data, 1, by_time=True)
    for per, limit in (("event", 7), ("user", 3)):
        whole, some = ask(data, TEST, per), ask(data, TEST, per, limit=limit, seed=4)
        every = [str(one) for one in zip(*picture(whole), strict=True)]
        drawn = [str(one) for one in zip(*picture(some), strict=True)]
        assert len(drawn) == limit
        assert [one for one in every if one in drawn] == drawn
        other = ask(data, TEST, per, limit=limit, seed=5)
        assert [str(one) for one in zip(*picture(other), strict=True)] != drawn
        assert len(ask(data, TEST, per, limit=len(whole))) == len(whole)


def picture(queries: Queries) -> list[list[Any]]:
    jagged = (queries.history_items, queries.seen, queries.relevant)
    return [queries.users.tolist(), *(rows(one) for one in jagged)]


def test_queries_are_taken_row_by_row(session_data: SessionData) -> None:
    data = random_log(session_data, 2, by_time=False)
    queries = ask(data, TEST, "event")
    chosen = torch.tensor([3, 0, 3])
    taken = queries.take(chosen)
    for wanted, found in zip(picture(queries), picture(taken), strict=True):
        assert found == [wanted[n] for n in chosen.tolist()]
    assert isinstance(queries.history, History)
    assert isinstance(taken.history, History)
    assert torch.equal(taken.history.gap, queries.history.take(chosen).gap)
    assert torch.equal(taken.block.single, queries.block.single[chosen])


@pytest.mark.parametrize("per", ["user", "event"])
def test_a_part_without_rows_asks_nothing(session_data: SessionData, per: str) -> None:
    data = session_data([0, 0, 1], [0, 1, 2])
    queries = ask(data, TEST, per)
    assert len(queries) == 0
    assert len(queries.history) == 0
