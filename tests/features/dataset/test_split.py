"""Splits: a partition, no later row before an earlier part, and the published protocols."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.features.dataset.split import (
    TRAIN,
    VALIDATION,
    RetrievalSplitConfig,
    SplitConfig,
    assign,
    words_of_drawn,
)

# (user, time), a byte each: lists of pairs take long to draw.
EVENTS = st.binary(min_size=30, max_size=200).map(lambda log: [(one % 6, one // 8) for one in log])


def log(events: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    users, times = np.array(sorted(events)).T
    return users.astype(np.int32), times.astype(np.int64)


@given(EVENTS)
def test_time_split_never_puts_a_later_row_into_an_earlier_part(
    events: list[tuple[int, int]],
) -> None:
    users, times = log(events)
    try:
        part = assign(SplitConfig(validation=0.2, test=0.2), users, times, None)
    except DataError:
        return  # nearly all rows at one instant
    assert set(part) <= {0, 1, 2}
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if (part == earlier).any() and (part == later).any():
            assert times[part == earlier].max() < times[part == later].min()


@given(EVENTS)
def test_leave_one_out_holds_out_the_last_two_rows_of_each_user(
    events: list[tuple[int, int]],
) -> None:
    users, times = log(events)
    part = assign(SplitConfig(kind="leave_one_out"), users, times, None)
    for user in np.unique(users):
        mine = part[users == user].tolist()
        expected = [0] * len(mine) if len(mine) < 3 else [0] * (len(mine) - 2) + [1, 2]
        assert mine == expected


def test_time_split_shares_and_given_instants() -> None:
    users, times = np.zeros(100, np.int32), np.arange(100) * 86_400_000_000
    part = assign(SplitConfig(), users, times, None)
    assert np.bincount(part).tolist() == [80, 10, 10]
    part = assign(SplitConfig(validation=0.3, test=0.1), users, times, None)
    assert np.bincount(part).tolist() == [60, 30, 10]
    dates = SplitConfig(validation_from="1970-01-21", test_from="1970-01-31T00:00:00+00:00")
    part = assign(dates, users, times - 1, None)  # an instant before each midnight
    assert np.bincount(part).tolist() == [21, 10, 69]


def test_unusable_splits_are_refused() -> None:
    users, times = np.zeros(10, np.int32), np.zeros(10, np.int64)
    with pytest.raises(DataError, match="split time: 0 training, 0 validation and 10 test rows"):
        assign(SplitConfig(), users, times, None)
    with pytest.raises(ConfigError, match="'soon' is not an ISO date"):
        assign(SplitConfig(validation_from="soon", test_from="2020-01-01"), users, times, None)
    with pytest.raises(ValueError, match="leave no training rows"):
        SplitConfig(validation=0.5, test=0.5)
    with pytest.raises(ValueError, match=r"goes with split\.kind: column"):
        SplitConfig(kind="column")


GIVEN = SplitConfig(kind="column", column="part")


def test_rows_of_one_time_are_said_to_be_so() -> None:
    users, same = np.arange(9, dtype=np.int32), np.full(9, 5)
    with pytest.raises(DataError, match=r"and 9 test rows \(all rows have the same time\); change"):
        assign(SplitConfig(), users, same, None)


def test_a_given_split_with_validation_rows_is_taken_at_its_word() -> None:
    users = np.zeros(30, np.int32)
    given = np.array([0] * 28 + [1, 2], np.int8)
    part = assign(GIVEN, users, np.arange(30), given)
    assert part.tolist() == given.tolist()


def test_validation_is_the_latest_share_of_each_users_training_rows() -> None:
    lengths = [1, 2, 3, 14, 16, 40]  # of training rows; a test row first and last besides
    users = np.repeat(np.arange(len(lengths)), np.array(lengths) + 2).astype(np.int32)
    given = np.concatenate([[2] + [0] * length + [2] for length in lengths]).astype(np.int8)
    before = given.copy()
    part = assign(GIVEN, users, np.arange(len(users)), given)
    assert (given == before).all()
    assert (part[given == 2] == 2).all()
    for user, (length, held_out) in enumerate(zip(lengths, [0, 0, 1, 1, 2, 4], strict=True)):
        mine = part[(users == user) & (given == 0)].tolist()
        assert mine == [0] * (length - held_out) + [1] * held_out
    large = GIVEN.model_copy(update={"validation": 0.89})  # never all of a user's rows
    part = assign(large, users, np.arange(len(users)), given)
    assert part[users == 2].tolist() == [2, 0, 1, 1, 2]


def test_without_an_order_validation_is_a_share_of_the_pairs_by_their_hash() -> None:
    users = np.repeat(np.arange(400), 50).astype(np.int32)
    users[-98:] = np.repeat(np.arange(1000, 1049), 2)  # too few rows to take one away
    given = np.zeros(len(users), np.int8)
    given[::7] = 2
    pairs = np.random.default_rng(0).integers(0, 2**64, len(users), np.uint64)
    pairs[10] = pairs[11] = np.uint64(0)  # one pair, twice
    config = GIVEN.model_copy(update={"validation": 0.25})
    part = assign(config, users, np.arange(len(users)), given, pairs)
    assert (part[given == 2] == 2).all()
    trained = (given == 0) & (users < 1000)
    assert (part[trained] == (pairs[trained] < 2**62)).all()
    assert (part[(given == 0) & (users >= 1000)] == 0).all()
    assert part[10] == part[11] == 1


def test_drawn_validation_in_words() -> None:
    words = words_of_drawn(GIVEN, in_order=True)
    assert words == "the last 10 % of each user's training rows"
    config = GIVEN.model_copy(update={"validation": 0.125})
    words = words_of_drawn(config, in_order=False)
    assert words == "12.5 % of each user's training rows, by a hash of user and item"


def test_validation_rows_may_join_training_and_no_others() -> None:
    users = np.repeat(np.arange(4, dtype=np.int32), 5)
    time = np.arange(20)
    plain = assign(SplitConfig(kind="leave_one_out"), users, time, None)
    joined = assign(
        RetrievalSplitConfig(kind="leave_one_out", join_validation=True), users, time, None
    )
    assert (plain == VALIDATION).sum() == 4
    assert joined.tolist() == np.where(plain == VALIDATION, TRAIN, plain).tolist()
    assert joined.dtype == plain.dtype


@given(EVENTS, st.sampled_from(["time", "leave_one_out"]))
def test_without_a_test_part_the_latest_rows_are_validation(
    events: list[tuple[int, int]], kind: str
) -> None:
    users, times = log(events)
    shares = {"validation": 0.3} if kind == "time" else {}
    config = SplitConfig.model_validate({"kind": kind, "test": 0, **shares})
    try:
        part = assign(config, users, times, None)
    except DataError:
        return  # nearly all rows at one instant, or no user of three rows
    assert set(part) == {TRAIN, VALIDATION}
    if kind == "time":
        assert times[part == TRAIN].max() < times[part == VALIDATION].min()
        return
    for user in np.unique(users):
        mine = part[users == user].tolist()
        assert mine == [0] * (len(mine) - 1) + [int(len(mine) >= 3)]


def test_shares_and_an_instant_without_a_test_part() -> None:
    users, times = np.zeros(100, np.int32), np.arange(100) * 86_400_000_000
    part = assign(SplitConfig(validation=0.3, test=0), users, times, None)
    assert np.bincount(part).tolist() == [70, 30]
    config = SplitConfig(validation_from="1970-01-21", test=0)
    assert np.bincount(assign(config, users, times - 1, None)).tolist() == [21, 79]


@given(EVENTS)
def test_nothing_is_held_out_where_the_kind_is_none(events: list[tuple[int, int]]) -> None:
    users, times = log(events)
    config = SplitConfig(kind="none")
    assert not assign(config, users, times, None).any()
    assert (config.evaluated, config.parts, config.trains_on_validation) == (None, (TRAIN,), True)


def test_a_column_without_test_rows_is_taken_where_none_are_asked_for() -> None:
    users, time = np.zeros(30, np.int32), np.arange(30)
    config = SplitConfig(kind="column", column="part", test=0)
    given = np.array([0] * 20 + [1] * 10, np.int8)
    assert assign(config, users, time, given).tolist() == given.tolist()
    drawn = assign(config, users, time, np.zeros(30, np.int8))
    assert drawn.tolist() == [0] * 27 + [1] * 3
    with pytest.raises(DataError, match=r"and 1 test rows, and split\.test: 0 says that there"):
        assign(config, users, time, np.array([0] * 28 + [1, 2], np.int8))
    with pytest.raises(DataError, match=r"split\.test: 0 trains without a test part"):
        assign(GIVEN, users, time, given)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "none", "test": 0.2}, "test is about rows that are held out, and split.kind: no"),
        ({"kind": "none", "test": 0}, "test is about rows that are held out"),
        ({"kind": "none", "validation": 0.2}, "validation is about rows that are held out"),
        ({"kind": "none", "join_validation": True}, "join_validation is about rows that are held"),
        ({"kind": "none", "cold_items": {"share": 0.1}}, "cold_items is about rows that are held"),
        ({"kind": "none", "column": "part"}, r"goes with split\.kind: column"),
        ({"test": 0, "validation_from": "2020-01-01", "test_from": "2021-01-01"}, "leaves none"),
        ({"validation_from": "2020-01-01"}, "with test: 0 give validation_from alone"),
        ({"kind": "leave_one_out", "test": 0.2}, "is a share of the rows, and split.kind: leave"),
        ({"test": -0.1}, "greater than or equal to 0"),
    ],
)
def test_what_a_split_without_test_rows_has_no_use_for_is_refused(
    keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RetrievalSplitConfig.model_validate(keys)
