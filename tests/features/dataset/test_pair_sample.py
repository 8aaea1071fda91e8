"""Pairs of users and items: all of them by hand, samples whose weights undo the draw."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.pair_sample import PairSample, released_items, sample_pairs
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION


@pytest.fixture(scope="module")
def released(dataset: Dataset) -> Dataset:
    """The small world with the rows of every fifth item, and no others, held out."""
    events, part = dataset.tables.events, np.full_like(dataset.part, TRAIN)
    part[events.item_row % 5 == 0] = VALIDATION
    part[events.item_row % 10 == 0] = TEST
    return replace(dataset, part=part)


def by_hand(
    data: Dataset, part: int, items: set[int], seen_too: bool
) -> dict[tuple[int, int], int]:
    """Return (user row, item row) -> taken, with plain sets."""
    events = data.tables.events
    rows = list(zip(events.user_row.tolist(), events.item_row.tolist(), data.part, strict=True))
    before = {(user, item) for user, item, of in rows if of < part}
    during = {(user, item) for user, item, of in rows if of == part}
    users = {user for user, _ in before}
    pairs = {(user, item) for user in users for item in items}
    if not seen_too:
        pairs -= before
    return {pair: int(pair in during) for pair in pairs}


def as_dict(data: Dataset, part: int, sample: PairSample) -> dict[tuple[int, int], int]:
    before = data.histories(tuple(range(part)))
    users = np.flatnonzero(before.lengths() > 0)
    keys = zip(users[sample.query].tolist(), sample.item_row.tolist(), strict=True)
    return dict(zip(keys, sample.label.astype(int).tolist(), strict=True))


@pytest.mark.parametrize("part", [VALIDATION, TEST])
@pytest.mark.parametrize("filter_seen", [True, False])
def test_all_pairs_equal_plain_sets(released: Dataset, part: int, filter_seen: bool) -> None:
    items = np.arange(released.num_items) % 3 == 0
    sample = sample_pairs(released, part, items, history_length=4, filter_seen=filter_seen)
    expected = by_hand(released, part, set(np.flatnonzero(items).tolist()), not filter_seen)
    assert as_dict(released, part, sample) == expected
    assert len(sample.query) == len(expected)
    assert (sample.weight == 1).all()
    assert (np.diff(sample.query) >= 0).all()


@pytest.mark.parametrize("filter_seen", [True, False])
def test_what_was_taken_before_counts_once_more_only_where_seen_items_stay(
    dataset: Dataset, filter_seen: bool
) -> None:
    """Cut anew so that users take again in validation what they took in training."""
    events = dataset.tables.events
    twice = np.repeat(np.arange(len(events)), 2)
    tables = replace(dataset.tables, events=events.take(twice))
    part = np.tile(np.array([TRAIN, VALIDATION], np.int8), len(events))
    part[twice % 3 == 0] = TRAIN
    part[twice % 7 == 0] = VALIDATION
    data = replace(dataset, tables=tables, part=part)
    items = np.ones(data.num_items, bool)
    sample = sample_pairs(data, VALIDATION, items, history_length=4, filter_seen=filter_seen)
    every = set(range(data.num_items))
    assert as_dict(data, VALIDATION, sample) == by_hand(data, VALIDATION, every, not filter_seen)
    some = sample_pairs(
        data, VALIDATION, items, history_length=4, filter_seen=filter_seen, most=5_000
    )
    assert (some.weight * some.label).sum() == pytest.approx(sample.label.sum())
    assert some.weight.sum() == pytest.approx(len(sample.query))
    taken = np.bincount(data.tables.events.item_row[part == TRAIN], minlength=data.num_items) > 0
    assert not (released_items(data, VALIDATION) & taken).any()


def test_users_come_with_what_they_took_before_alone(released: Dataset) -> None:
    items = released_items(released, VALIDATION)
    sample = sample_pairs(released, VALIDATION, items, history_length=3, filter_seen=True)
    before = released.histories((TRAIN,))
    users = np.flatnonzero(before.lengths() > 0)
    assert sample.num_events.tolist() == before.lengths()[users].tolist()
    assert int(sample.history.lengths().max()) == 3
    last = before.last(users[5:6], 3).values.tolist()
    first, end = sample.history.offsets[5:7]
    assert sample.history.values[first:end].tolist() == last
    assert len(sample.block) == len(users)


def test_released_items_have_their_first_rows_in_the_part(released: Dataset) -> None:
    rows = np.arange(released.num_items)
    taken = np.bincount(released.tables.events.item_row, minlength=released.num_items) > 0
    assert (released_items(released, VALIDATION) == (taken & (rows % 10 == 5))).all()
    assert (released_items(released, TEST) == (taken & (rows % 10 == 0))).all()


@pytest.mark.parametrize("most", [100, 600, 6_000])
def test_a_sample_stands_for_all_pairs(released: Dataset, most: int) -> None:
    items = np.ones(released.num_items, bool)
    whole = sample_pairs(released, VALIDATION, items, history_length=3, filter_seen=True)
    some = sample_pairs(released, VALIDATION, items, history_length=3, filter_seen=True, most=most)
    assert len(some.query) <= most < len(whole.query)
    assert some.weight.sum() == pytest.approx(len(whole.query))
    assert (some.weight * some.label).sum() == pytest.approx(whole.label.sum())
    assert (np.diff(some.query) >= 0).all()
    taken = as_dict(released, VALIDATION, whole)
    for pair, label in as_dict(released, VALIDATION, some).items():
        assert taken[pair] == label


def test_only_active_users_where_asked(released: Dataset) -> None:
    items = np.ones(released.num_items, bool)
    part = released.part.copy()
    part[(part == VALIDATION) & (released.tables.events.user_row < 50)] = TEST
    data = replace(released, part=part)
    active = sample_pairs(
        data, VALIDATION, items, history_length=3, filter_seen=True, active_only=True
    )
    during = data.histories((VALIDATION,)).lengths() > 0
    before = data.histories((TRAIN,)).lengths() > 0
    assert len(active.num_events) == int((during & before).sum()) < int(before.sum())
