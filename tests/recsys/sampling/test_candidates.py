"""More candidates, against plain Python: who stands where, who is spared, what is cached."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batch import FeatureBlock, Jagged, PairBatch
from recsys.sampling.candidates import columns_of, excluded_also, row_by_row, with_candidates
from recsys.sampling.negative_cache import NegativeCache

ITEMS = 30


def jagged(rows: list[list[int]]) -> Jagged:
    values = np.array([value for row in rows for value in row], np.int64)
    return Jagged.of_lengths(values, np.array([len(row) for row in rows], np.int64))


def listed(one: Jagged) -> list[list[int]]:
    return [part.tolist() for part in one.values.split(one.lengths().tolist())]


def features(rows: torch.Tensor) -> FeatureBlock:
    """What a catalogue knows of item j: j, a bag of j mod 3 values j, the number j / 2."""
    bags = jagged([[row] * (row % 3) for row in rows.tolist()])
    return FeatureBlock(rows.unsqueeze(1), (bags,), rows.unsqueeze(1).float() / 2)


def batch_of(candidates: list[int], histories: list[list[int]]) -> PairBatch:
    extra = sorted({item for row in histories for item in row} - set(candidates))
    rows = candidates + extra
    count = len(histories)
    return PairBatch(
        items=features(torch.tensor(rows)),
        item_rows=torch.tensor(rows),
        num_candidates=len(candidates),
        query=features(torch.arange(count)),
        history=jagged([[rows.index(item) for item in row] for row in histories]),
        asks=torch.arange(count),
        positive=torch.arange(count) % len(candidates),
        not_negative=jagged([[i % len(candidates)] for i in range(count)]),
        log_inclusion=-torch.arange(len(candidates)).float() - 1,
        weight=torch.ones(count),
        examples=torch.arange(count),
    )


rows_of_items = st.lists(st.integers(0, ITEMS - 1), max_size=6)


@settings(max_examples=60)
@given(
    st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=8),
    st.lists(rows_of_items, min_size=1, max_size=5),
    rows_of_items,
)
def test_items_join_once_and_all_else_means_what_it_meant(
    candidates: set[int], histories: list[list[int]], joins: list[int]
) -> None:
    batch = batch_of(sorted(candidates), histories)
    grown = with_candidates(batch, torch.tensor(joins, dtype=torch.int64), features)
    rows = grown.item_rows.tolist()
    own, new = sorted(candidates), sorted(set(joins) - candidates)
    assert rows[: grown.num_candidates] == own + new
    assert len(set(rows)) == len(rows)
    assert sorted(rows) == sorted(set(batch.item_rows.tolist()) | set(new))
    assert [[rows[place] for place in line] for line in listed(grown.history)] == histories
    assert grown.log_inclusion.tolist() == batch.log_inclusion.tolist() + [0.0] * len(new)
    expected = features(grown.item_rows)
    assert torch.equal(grown.items.single, expected.single)
    assert torch.equal(grown.items.dense, expected.dense)
    assert listed(grown.items.multi[0]) == listed(expected.multi[0])
    assert grown.positive is batch.positive


@given(st.lists(rows_of_items, min_size=1, max_size=5), st.sets(st.integers(0, ITEMS - 1)))
@settings(max_examples=60)
def test_places_of_what_was_taken(taken: list[list[int]], chosen: set[int]) -> None:
    order = sorted(chosen, reverse=True)
    found = columns_of(jagged(taken), torch.tensor(order, dtype=torch.int64), ITEMS)
    want = [sorted({order.index(item) for item in row if item in chosen}) for row in taken]
    assert listed(found) == want


def test_rows_are_joined_row_by_row() -> None:
    first, second = [[1, 2], [], [3]], [[4], [5], []]
    joined = row_by_row(jagged(first), jagged(second))
    assert listed(joined) == [[1, 2, 4], [5], [3]]


def test_users_are_spared_what_they_took_among_those_that_joined() -> None:
    batch = batch_of([4, 7, 9], [[1], [4]])
    grown = with_candidates(batch, torch.tensor([2, 8, 7]), features)
    spared = excluded_also(grown, jagged([[8, 9, 4], [2, 2, 20]]), 3, ITEMS)
    assert listed(spared.not_negative) == [[0, 4], [1, 3]]


@pytest.mark.parametrize(("first", "second"), [(None, None), ([1.0, 2.0], None), (None, [3.0])])
def test_blocks_stand_one_above_the_other(
    first: list[float] | None, second: list[float] | None
) -> None:
    upper, lower = features(torch.tensor([2, 5])), features(torch.tensor([4]))
    weights = [None if one is None else torch.tensor(one) for one in (first, second)]
    bags = Jagged(torch.tensor([7, 8]), torch.tensor([0, 2, 2]), weights[0])
    other = Jagged(torch.tensor([9]), torch.tensor([0, 1]), weights[1])
    both = replace(upper, multi=(bags,)).above(replace(lower, multi=(other,)))
    assert both.single[:, 0].tolist() == [2, 5, 4]
    assert both.dense[:, 0].tolist() == [1.0, 2.5, 2.0]
    assert listed(both.multi[0]) == [[7, 8], [], [9]]
    if first is None and second is None:
        assert both.multi[0].weights is None
    else:
        assert both.multi[0].weights is not None
        want = (first or [1.0, 1.0]) + (second or [1.0])
        assert both.multi[0].weights.tolist() == want


def pushed(cache: NegativeCache, rows: list[int], mark: float, log_q: float = -1.0) -> None:
    vectors = torch.tensor(rows).float().unsqueeze(1).repeat(1, 2)
    vectors[:, 1] = mark
    cache.push(vectors, torch.tensor(rows), torch.full((len(rows),), log_q))


def test_a_cache_holds_the_last_batches_and_gives_the_newest_of_each_item() -> None:
    rng = np.random.default_rng(0)
    cache = NegativeCache(20, 2)
    batches: list[tuple[int, list[int]]] = []
    for step in range(60):
        rows = rng.choice(ITEMS, rng.integers(1, 9), replace=False).tolist()
        candidates = rng.choice(ITEMS, 6, replace=False).tolist()
        found = cache.beside(torch.tensor(candidates), torch.full((6,), -1.0))
        kept: list[tuple[int, list[int]]] = []
        for number, past in reversed(batches):
            if sum(len(one) for _, one in kept) + len(past) > 20:
                break
            kept.append((number, past))
        newest: dict[int, int] = {}
        for number, past in kept:
            for item in past:
                newest.setdefault(item, number)
        want = {item: n for item, n in newest.items() if item not in candidates}
        seen = dict(zip(found.item_rows.tolist(), found.vectors[:, 1].tolist(), strict=True))
        assert seen == want
        assert found.vectors[:, 0].tolist() == found.item_rows.tolist()
        pushed(cache, rows, step)
        batches.append((step, rows))


def test_batch_and_cache_together_are_a_sample_with_these_probabilities() -> None:
    """What is among a batch and the cache, over many runs, is as often there as it is said."""
    generator = np.random.default_rng(1)
    q = np.linspace(0.2, 0.9, ITEMS)
    log_q = torch.from_numpy(np.log(q)).float()
    cache, counts, said = NegativeCache(60, 1), np.zeros(ITEMS), np.zeros(ITEMS)
    rounds = 2000
    for _ in range(rounds):
        rows = torch.from_numpy(np.flatnonzero(generator.random(ITEMS) < q))
        found = cache.beside(rows, log_q[rows])
        counts[np.concatenate([rows.numpy(), found.item_rows.numpy()])] += 1
        # An estimate of 1 from every item: 1 / its probability where it is there.
        said[rows.numpy()] += (-found.own_log_inclusion).exp().numpy()
        said[found.item_rows.numpy()] += (-found.log_inclusion).exp().numpy()
        cache.push(torch.zeros(len(rows), 1), rows, log_q[rows])
    assert (counts / rounds > q + 0.05).sum() > ITEMS / 2
    assert np.abs(said / rounds - 1).max() < 0.12


def test_a_batch_larger_than_the_cache_leaves_a_random_part() -> None:
    generator = np.random.default_rng(2)
    q = np.linspace(0.2, 0.9, ITEMS)
    log_q = torch.from_numpy(np.log(q)).float()
    cache, said = NegativeCache(5, 1), np.zeros(ITEMS)
    rounds = 2000
    for _ in range(rounds):
        rows = torch.from_numpy(np.flatnonzero(generator.random(ITEMS) < q))
        found = cache.beside(rows, log_q[rows])
        said[rows.numpy()] += (-found.own_log_inclusion).exp().numpy()
        said[found.item_rows.numpy()] += (-found.log_inclusion).exp().numpy()
        cache.push(torch.zeros(len(rows), 1), rows, log_q[rows])
        assert len(found.item_rows) <= 5
    assert np.abs(said / rounds - 1).max() < 0.12


def test_no_gradient_flows_into_the_cache_and_its_state_is_all_of_it() -> None:
    cache = NegativeCache(8, 2)
    vectors = torch.ones(3, 2, requires_grad=True)
    cache.push(vectors * 2, torch.tensor([1, 2, 3]), torch.zeros(3))
    copy = NegativeCache(8, 2)
    copy.load_state_dict(cache.state_dict())
    for one in (cache, copy):
        pushed(one, [5, 6, 2, 7], 9.0)
    found, other = (one.beside(torch.tensor([7]), torch.zeros(1)) for one in (cache, copy))
    assert not any(buffer.requires_grad for buffer in cache.buffers())
    assert sorted(found.item_rows.tolist()) == [1, 2, 3, 5, 6]
    assert torch.equal(found.vectors, other.vectors)
    assert torch.equal(found.log_inclusion, other.log_inclusion)


def test_a_cache_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a cache of 0 entries: at least 1"):
        NegativeCache(0, 4)
