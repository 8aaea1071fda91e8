"""Splits: a partition, no later row before an earlier part, and the published protocols."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.split import SplitConfig, assign
from recsys.errors import ConfigError, DataError

EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=30, max_size=200)


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
