"""Histories: truncation invariance, and windows equal to plain slices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.dataset.histories import Histories

# (user, time), a byte each: lists of pairs take long to draw.
EVENTS = st.binary(min_size=1, max_size=60).map(lambda log: [(one % 5, one // 28) for one in log])


def build(events: list[tuple[int, int]], num_users: int = 5) -> Histories:
    users, times = np.array(sorted(events)).T
    items = np.arange(len(events), dtype=np.int32)
    return Histories.build(users.astype(np.int32), items, times.astype(np.int64), num_users)


@given(EVENTS)
def test_a_history_holds_exactly_the_strictly_earlier_events_of_the_user(
    events: list[tuple[int, int]],
) -> None:
    histories, ordered = build(events), sorted(events)
    for number, end in enumerate(histories.before_each()):
        user, time = ordered[number]
        start = histories.offsets[user]
        expected = [i for i, (u, t) in enumerate(ordered) if u == user and t < time]
        assert histories.item_row[start:end].tolist() == expected


@given(EVENTS, st.integers(0, 8))
def test_deleting_later_rows_changes_no_earlier_history(
    events: list[tuple[int, int]], cut: int
) -> None:
    earlier = [event for event in events if event[1] < cut]
    if not earlier:
        return
    whole, truncated = build(events), build(earlier)
    kept = [i for i, event in enumerate(sorted(events)) if event[1] < cut]
    user_of = [sorted(events)[i][0] for i in kept]
    lengths = whole.before_each()[kept] - whole.offsets[:-1][user_of]
    lengths_cut = truncated.before_each() - truncated.offsets[:-1][user_of]
    assert lengths.tolist() == lengths_cut.tolist()


@given(EVENTS, st.integers(1, 10))
def test_last_equals_a_slice(events: list[tuple[int, int]], length: int) -> None:
    histories = build(events)
    users = np.array([3, 0, 0, 4])
    found = histories.last(users, length)
    for row, user in enumerate(users):
        mine = histories.item_row[histories.offsets[user] : histories.offsets[user + 1]]
        got = found.values[found.offsets[row] : found.offsets[row + 1]]
        assert got.tolist() == mine[-length:].tolist()
