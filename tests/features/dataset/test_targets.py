"""Rows that are asked for: how they are held out, asked about, and trained towards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.core.errors import DataError
from recsys.features.batches.examples import Rows, Users
from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.batches.rows import RankingLoader
from recsys.features.batches.sessions import SessionLoader, SessionLoaderConfig
from recsys.features.dataset.dataset import Dataset, parted
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.pair_sample import sample_pairs
from recsys.features.dataset.queries import build_queries, users_to_ask
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, cut_sessions
from recsys.features.dataset.split import SplitConfig, assign
from recsys.features.requests.table import request_table
from recsys.features.table_roles import EventTypes
from recsys.features.tables.undone import NEVER

Make = Callable[..., Dataset]
ROLE = {"column": "event", "weights": {"view": 1, "buy": 4}, "seen": ["buy"]}
ALL: dict[str, Any] = {"filter_seen": True, "limit": 99, "seed": 0}


def shop(make: Make, types: str, *, seen: Sequence[str] = ("buy",), **columns: Any) -> Dataset:
    """Return a log whose rows are v (views) and b (buys), which are asked for; users in order."""
    data = make(**columns)
    role = EventTypes.model_validate({**ROLE, "seen": tuple(seen)})
    interactions = data.schema.interactions.model_copy(update={"events": role})
    kind = np.array([one == "b" for one in types], np.int8)
    events = replace(data.tables.events, type=kind, target=kind > 0)
    return replace(
        data,
        schema=data.schema.model_copy(update={"interactions": interactions}),
        tables=replace(data.tables, events=events),
    )


@pytest.fixture
def data(session_data: Make) -> Dataset:
    # user 0: views 0, views 1, buys 1; later views 2, buys 0, buys 1. user 1: views 2; views 3.
    return shop(
        session_data,
        "vvbvbbvv",
        user=[0, 0, 0, 0, 0, 0, 1, 1],
        item=[0, 1, 1, 2, 0, 1, 2, 3],
        time=[0, 60, 120, 9000, 9060, 9120, 0, 9000],
        part=[0, 0, 0, 2, 2, 2, 0, 2],
    )


def test_only_targets_are_relevant_and_only_what_was_bought_is_seen(data: Dataset) -> None:
    queries = build_queries(data, 2, history_length=9, **ALL)
    assert queries.users.tolist() == [0]  # user 1 buys nothing
    assert queries.relevant.values.tolist() == [0]  # 1 was bought before, 0 only looked at
    assert queries.seen.values.tolist() == [1]
    assert queries.history_items.values.tolist() == [0, 1, 1]
    assert users_to_ask(data.schema, data.tables, data.part, 2, filter_seen=True).tolist() == [0]
    kept = build_queries(data, 2, history_length=9, **{**ALL, "filter_seen": False})
    assert kept.relevant.values.tolist() == [0, 1]


def test_without_types_named_as_seen_all_are(session_data: Make) -> None:
    columns = {"user": [0, 0, 0], "item": [0, 1, 0], "time": [0, 60, 9000], "part": [0, 0, 2]}
    seen = build_queries(shop(session_data, "vvb", seen=(), **columns), 2, history_length=9, **ALL)
    assert len(seen) == 0
    bought = build_queries(shop(session_data, "vvb", **columns), 2, history_length=9, **ALL)
    assert bought.relevant.values.tolist() == [0]


@pytest.mark.parametrize(("filter_seen", "asked"), [(True, [0]), (False, [0, 1])])
def test_events_that_are_asked_for_are_the_queries_of_sessions(
    data: Dataset, filter_seen: bool, asked: list[int]
) -> None:
    sessions = cut_sessions(data, SessionConfig(inactivity_minutes=30))
    queries = build_session_queries(
        data, sessions, 2, per="event", history_length=9, filter_seen=filter_seen, limit=9, seed=0
    )
    assert queries.relevant.values.tolist() == asked
    assert queries.history_items.values.tolist() == [2, 2, 0][: 1 if filter_seen else 3]
    assert queries.seen.values.tolist() == [1, 1, 0][: 1 if filter_seen else 3]


def test_pairs_of_a_probability_are_positive_where_they_are_targets(data: Dataset) -> None:
    pairs = sample_pairs(data, 2, np.ones(4, bool), history_length=9, filter_seen=True)
    found = list(zip(pairs.query.tolist(), pairs.item_row.tolist(), strict=True))
    assert (0, 1) not in found  # bought before
    assert [one for one, label in zip(found, pairs.label, strict=True) if label] == [(0, 0)]


def test_requests_from_a_log_say_what_was_bought_as_seen(data: Dataset) -> None:
    histories = data.histories((0, 1, 2))
    table = request_table(data.schema, data.tables, histories, np.array([0, 1]))
    assert table.column("history").to_pylist() == [[0, 1, 1, 2, 0, 1], [2, 3]]
    assert table.column("seen").to_pylist() == [[1, 0, 1], []]


def test_rows_are_trained_towards_with_all_earlier_rows_as_history(session_data: Make) -> None:
    columns = {"user": [0] * 5, "item": [0, 1, 1, 2, 2], "time": [0, 60, 120, 9000, 9060]}
    log = shop(session_data, "vvbvb", **columns)
    found = Rows(log, 9).draw(np.arange(2), np.random.default_rng(0))
    assert found.events.tolist() == [2, 4]
    assert found.history.values.tolist() == [0, 1, 0, 1, 1, 2]
    assert len(Rows(log, 9, targets=False)) == 5
    apart = Rows(log, 9, gap_seconds=3600).draw(np.arange(2), np.random.default_rng(0))
    assert apart.history.values.tolist() == [0, 1, 1]
    assert apart.history.lengths().tolist() == [0, 3]


def test_users_are_cut_before_a_target(session_data: Make) -> None:
    columns = {"user": [0] * 5 + [1], "item": [0, 1, 1, 2, 2, 3], "time": [0, 1, 2, 3, 4, 0]}
    users = Users(shop(session_data, "vvbvbv", **columns), 9, 5, ordered=True)
    assert users.users.tolist() == [0]
    drawn = {}
    for seed in range(20):
        found = users.draw(np.arange(1), np.random.default_rng(seed))
        drawn[tuple(found.events.tolist())] = found.history.values.tolist()
    assert drawn == {(2, 4): [0, 1], (4,): [0, 1, 1, 2]}


def test_the_chance_of_being_a_candidate_is_by_what_is_trained_towards(session_data: Make) -> None:
    columns = {"user": [0] * 6, "item": [0, 0, 0, 1, 1, 2], "time": range(6), "num_items": 9}
    config = LoaderConfig(
        batch_size=1, uniform_negatives=1, history_length=3, id_dropout=0, context_dropout=0, seed=0
    )
    log = shop(session_data, "vvvbbb", **columns)
    towards, rows = (PairLoader(log, replace(config, targets=one)) for one in (True, False))
    assert towards.num_steps == 3
    assert rows.num_steps == 6
    assert towards.log_inclusion[1] > towards.log_inclusion[0]
    assert rows.log_inclusion[0] > rows.log_inclusion[1]


SESSIONS = SessionLoaderConfig(
    batch_size=9,
    max_length=9,
    windows="last",
    positions="all",
    whole_catalogue=True,
    uniform_negatives=0,
    frequent_negatives=0,
    batch_negatives=False,
    id_dropout=0.0,
    event_dropout=0.0,
    step_dropout=0.0,
    trained_only=False,
    seed=0,
)


def loader(make: Make, **changes: Any) -> SessionLoader:
    # user 0: v0 v1 b2 v3 b4 v5; user 1: v0 v1; user 2: b6 v7
    log = shop(
        make,
        "vvbvbvvvbv",
        user=[0, 0, 0, 0, 0, 0, 1, 1, 2, 2],
        item=[0, 1, 2, 3, 4, 5, 0, 1, 6, 7],
        time=[0, 1, 2, 3, 4, 5, 0, 1, 0, 1],
    )
    return SessionLoader(log, cut_sessions(log, SessionConfig()), replace(SESSIONS, **changes))


def test_a_window_ends_with_a_target_and_asks_for_targets(session_data: Make) -> None:
    found = loader(session_data)
    batch = found.batch(0, 0)
    assert found.num_windows == 1  # user 1 buys nothing, user 2 nothing behind another row
    assert batch.item_rows[batch.history.items.values].tolist() == [0, 1, 2, 3]
    assert batch.item_rows[batch.positive].tolist() == [2, 4]
    assert batch.asks.tolist() == [1, 3]
    assert loader(session_data, targets=False).num_windows == 3


def test_a_prefix_ends_before_a_target(session_data: Make) -> None:
    found = loader(session_data, positions="random_prefix")
    batches = [found.batch(epoch, 0) for epoch in range(12)]
    wanted = {tuple(batch.item_rows[batch.positive].tolist()) for batch in batches}
    assert wanted == {(2,), (4,)}
    for batch in batches:
        last = batch.item_rows[batch.history.items.values][-1]
        assert batch.item_rows[batch.positive].tolist() == [int(last) + 1]


def test_sliding_windows_without_a_target_are_none(session_data: Make) -> None:
    found = loader(session_data, windows="slide", max_length=1)
    batch = found.batch(0, 0)
    assert found.num_windows == 2
    assert sorted(batch.item_rows[batch.positive].tolist()) == [2, 4]


def test_sessions_without_a_target_behind_another_row_are_refused(session_data: Make) -> None:
    log = shop(session_data, "bvv", user=[0] * 3, item=[0, 1, 2], time=[0, 1, 2])
    with pytest.raises(DataError, match="no target of the training rows has an earlier row"):
        SessionLoader(log, cut_sessions(log, SessionConfig()), SESSIONS)


def test_a_ranker_of_positives_has_targets_for_rows(data: Dataset) -> None:
    rows = RankingLoader(data, batch_size=8, seed=0, negatives=1)
    assert rows.events.tolist() == [2]
    assert rows.num_rows(2) == 2 * (1 + 3)


def test_leave_one_out_holds_out_the_last_targets_and_what_follows_them() -> None:
    users = np.zeros(8, np.int32)
    target = np.array([one == "b" for one in "bvbvbvbv"])
    config = SplitConfig(kind="leave_one_out")
    part = assign(config, users, np.arange(8), None, None, target)
    assert part.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    few = np.array([one == "b" for one in "vvvvbvbv"])
    both = np.concatenate([np.zeros(8), np.ones(8)]).astype(np.int32)
    part = assign(config, both, np.arange(16), None, None, np.concatenate([target, few]))
    assert part.tolist() == [0, 0, 0, 0, 1, 1, 2, 2] + [0] * 8  # two targets are too few


def test_a_part_without_a_target_is_refused(data: Dataset) -> None:
    events = replace(data.tables.events, target=np.arange(8) < 2)
    tables = replace(data.tables, events=events)
    with pytest.raises(DataError, match="no test row is a target"):
        parted(
            data.schema,
            tables,
            SplitConfig(validation_from="1970-01-01T00:01", test_from="1970-01-01T01:00"),
        )


def test_a_row_stays_in_training_where_it_was_taken_back_later(session_data: Make) -> None:
    times = [0, 60, 7200, 7260, 9000, 9060]
    log = shop(session_data, "bbbbbb", user=[0] * 6, item=list(range(6)), time=times)
    undone = np.array([60, 9000, NEVER, NEVER, NEVER, 9100])
    undone[undone < NEVER] *= 1_000_000
    tables = replace(log.tables, events=replace(log.tables.events, undone=undone))
    split = SplitConfig(validation_from="1970-01-01T01:00", test_from="1970-01-01T02:20")
    left, part, _ = parted(log.schema, tables, split)
    # 0 was taken back in training, 5 in the test part as it was bought; 1 only there.
    assert left.events.item_row.tolist() == [1, 2, 3, 4]
    assert part.tolist() == [0, 1, 1, 2]
    assert "1 more stay" in left.drops[0].reason
    left, _, _ = parted(log.schema, tables, SplitConfig(kind="leave_one_out"))
    assert left.events.item_row.tolist() == [2, 3, 4]


def test_a_gap_is_counted_from_each_row_within_its_user() -> None:
    users = np.array([0, 0, 0, 1, 1], np.int32)
    seconds = np.array([0, 100, 160, 0, 60])
    histories = Histories.build(users, np.arange(5, dtype=np.int32), seconds * 1_000_000, 2)
    assert histories.before_each_by(0).tolist() == histories.before_each().tolist()
    assert histories.before_each_by(60).tolist() == [0, 1, 2, 3, 4]
    assert histories.before_each_by(61).tolist() == [0, 1, 1, 3, 3]
    assert histories.before_each_by(1000).tolist() == [0, 0, 0, 3, 3]
