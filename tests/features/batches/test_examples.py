"""Examples of retrieval: rows and users, cut so that nothing a query is to find is in sight."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.features.batches.examples import Drawn, Rows, Users
from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN


def drawn(data: Dataset, *, ordered: bool = True, cut: bool = True, positives: int = 4) -> Drawn:
    users = Users(data, 5, positives, ordered=ordered, cut=cut)
    return users.draw(np.arange(len(users)), np.random.default_rng(3))


def rows_of(data: Dataset, user: int) -> np.ndarray:  # type: ignore[type-arg]
    mine = (data.tables.events.user_row == user) & (data.part == TRAIN)
    return np.flatnonzero(mine)


def test_each_row_is_a_query_with_what_came_before(dataset: Dataset) -> None:
    rows = Rows(dataset, 5)
    found = rows.draw(np.arange(len(rows)), np.random.default_rng(0))
    assert found.events.tolist() == rows.events.tolist() == found.context.tolist()
    assert found.asks.tolist() == list(range(len(rows)))


@pytest.mark.parametrize("positives", [1, 4, 1000])
def test_a_cut_user_is_to_find_the_next_rows_and_sees_those_before(
    dataset: Dataset, positives: int
) -> None:
    events = dataset.tables.events
    found = drawn(dataset, positives=positives)
    cuts = []
    for query, user in enumerate(found.users.tolist()):
        mine = rows_of(dataset, user)
        own = found.events[found.asks == query]
        first = int(np.flatnonzero(mine == own[0])[0])
        cuts.append(first / len(mine))
        items = events.item_row[mine[first : first + positives]]
        assert sorted(events.item_row[own].tolist()) == sorted(set(items.tolist()))
        before = mine[:first][events.time[mine[:first]] < events.time[own[0]]]
        assert len(before) == first  # rows of one instant stay together
        start, stop = found.history.offsets[query], found.history.offsets[query + 1]
        assert found.history.values[start:stop].tolist() == events.item_row[before][-5:].tolist()
        assert found.context[query] == own[0]
    assert 0.3 < float(np.mean(cuts)) < 0.6
    assert min(cuts) == 0


def test_without_an_order_the_history_is_any_of_the_other_rows(dataset: Dataset) -> None:
    found, again = drawn(dataset, ordered=False, positives=1000), drawn(dataset, positives=1000)
    shuffled = 0
    for query, user in enumerate(found.users.tolist()):
        own = found.events[found.asks == query]
        mine = rows_of(dataset, user)
        start, stop = found.history.offsets[query], found.history.offsets[query + 1]
        seen = found.history.values[start:stop].tolist()
        items = dataset.tables.events.item_row[mine].tolist()
        assert set(seen) | set(dataset.tables.events.item_row[own].tolist()) <= set(items)
        shuffled += own.tolist() != again.events[again.asks == query].tolist()
    assert shuffled > len(found.users) // 2


def test_uncut_users_see_all_that_they_are_to_find(dataset: Dataset) -> None:
    found = drawn(dataset, cut=False, positives=1000)
    events = dataset.tables.events
    for query, user in enumerate(found.users.tolist()):
        mine = events.item_row[rows_of(dataset, user)].tolist()
        own = events.item_row[found.events[found.asks == query]].tolist()
        assert sorted(own) == sorted(set(mine))
        start, stop = found.history.offsets[query], found.history.offsets[query + 1]
        assert found.history.values[start:stop].tolist() == mine[-5:]


def test_uncut_users_are_asked_for_any_of_their_rows(dataset: Dataset) -> None:
    users = Users(dataset, 5, 2, ordered=True, cut=False)
    places = []
    for seed in range(4):
        found = users.draw(np.arange(len(users)), np.random.default_rng(seed))
        for user, event in zip(found.users[found.asks], found.events, strict=True):
            mine = rows_of(dataset, int(user))
            places.append(int(np.flatnonzero(mine == event)[0]) / len(mine))
    assert 0.35 < float(np.mean(places)) < 0.55
    assert max(places) > 0.9


def test_a_cut_never_falls_between_rows_of_one_instant(dataset: Dataset) -> None:
    events = dataset.tables.events
    paired = np.arange(len(events)) // 2  # each row has the time of the one beside it
    data = replace(dataset, tables=replace(dataset.tables, events=replace(events, time=paired)))
    found = drawn(data, positives=1000)
    for query, user in enumerate(found.users.tolist()):
        mine = rows_of(data, user)
        first = int(np.flatnonzero(mine == found.events[found.asks == query][0])[0])
        assert first == 0 or paired[mine[first]] != paired[mine[first - 1]]


def loader(data: Dataset, **changes: object) -> PairLoader:
    config = {
        "batch_size": 32,
        "uniform_negatives": 16,
        "history_length": 5,
        "id_dropout": 0.0,
        "context_dropout": 0.0,
        "seed": 7,
        "examples": "users",
        "positives": 6,
        **changes,
    }
    return PairLoader(data, LoaderConfig(**config))  # type: ignore[arg-type]


@pytest.mark.parametrize("mask_taken", [True, False])
@pytest.mark.parametrize("whole_catalogue", [True, False])
def test_what_is_no_negative(dataset: Dataset, mask_taken: bool, whole_catalogue: bool) -> None:
    pairs = loader(dataset, mask_taken=mask_taken, whole_catalogue=whole_catalogue)
    events = dataset.tables.events
    batch = pairs.batch(0, 1)
    rows = batch.item_rows.numpy()
    if whole_catalogue:
        assert rows.tolist() == list(range(dataset.num_items))
        assert batch.log_inclusion.tolist() == [0.0] * dataset.num_items
    candidates = rows[: batch.num_candidates]
    for query in range(len(batch.query)):
        own = (batch.asks == query).numpy()
        user = int(events.user_row[int(batch.examples[own][0])])
        items = events.item_row[batch.examples[own].numpy()]
        assert rows[batch.positive[own].numpy()].tolist() == items.tolist()
        expected = set(items.tolist())
        if mask_taken:
            taken = events.item_row[rows_of(dataset, user)]
            expected = set(taken.tolist()) & set(candidates.tolist())
        start, stop = batch.not_negative.offsets[query], batch.not_negative.offsets[query + 1]
        found = rows[batch.not_negative.values[start:stop].numpy()].tolist()
        assert sorted(found) == sorted(expected)


def test_ranks_share_the_queries_of_users_with_all_their_pairs(dataset: Dataset) -> None:
    pairs = loader(dataset)
    whole = pairs.batch(1, 2)
    shares = [pairs.batch(1, 2, rank=rank, world=3) for rank in range(3)]
    assert sum(len(share.query) for share in shares) == len(whole.query)
    for rank, share in enumerate(shares):
        of_rank = whole.asks % 3 == rank
        assert share.examples.tolist() == whole.examples[of_rank].tolist()
        assert share.asks.tolist() == (whole.asks[of_rank] // 3).tolist()
        assert share.positive.tolist() == whole.positive[of_rank].tolist()
        assert len(share.not_negative) == len(share.query)


def test_users_put_items_into_batches_as_often_as_is_said(dataset: Dataset) -> None:
    pairs = loader(dataset, uniform_negatives=4, positives=1000, batch_size=8)
    seen = np.zeros(dataset.num_items)
    batches = 0
    for epoch in range(40):
        for step in range(pairs.num_steps - 1):  # the last one is smaller
            batch = pairs.batch(epoch, step)
            seen[batch.item_rows[: batch.num_candidates].numpy()] += 1
            batches += 1
    # Users differ in how many rows they bring, which the estimate takes for their mean.
    expected = np.exp(pairs.log_inclusion.numpy())
    assert abs(float(seen.mean() / batches - expected.mean())) < 0.15
    assert np.corrcoef(seen, expected)[0, 1] > 0.9
