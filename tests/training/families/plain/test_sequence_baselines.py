"""Baselines that read order, against slow loops over sequences, and cases by hand."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from recsys.features.dataset.dataset import Dataset
from recsys.plain.attributes import AttributePopularity
from recsys.plain.markov import MarkovChain
from recsys.plain.session_items import SessionItems
from recsys.plain.session_knn import SessionKNN, vote_products
from recsys.retrieval.follow import follow_bytes, last_steps
from recsys.training.families.plain.rows import item_values

ITEMS = 11
Lists = list[list[int]]
HISTORIES: Lists = [[0, 3, 3, 5], [], [9], [5, 4, 3, 2, 1, 0, 1], [ITEMS - 1]]


def log(seed: int, num_sequences: int = 25) -> Lists:
    """Sequences of unlike length, repeats among them; the last item is never taken."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 9, num_sequences)
    return [generator.integers(0, ITEMS - 1, length).tolist() for length in lengths]


def flat(lists: Lists, numbers: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The sequence of each event, and its item."""
    numbers = list(range(len(lists))) if numbers is None else numbers
    sequence = np.repeat(numbers, [len(one) for one in lists])
    return sequence, np.array([item for one in lists for item in one], np.int32)


def jagged(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    return flat(lists)[1].astype(np.int64), np.cumsum([0, *map(len, lists)])


def follow_loops(lists: Lists, steps: int, lag_decay: float) -> np.ndarray:
    counts = np.zeros((ITEMS, ITEMS))
    for one in lists:
        for place, item in enumerate(one):
            for lag in range(1, steps + 1):
                if place + lag < len(one):
                    counts[item, one[place + lag]] += lag_decay ** (lag - 1)
    return counts


def taken_by(lists: Lists) -> np.ndarray:
    """How many sequences hold each item."""
    return np.array([sum(item in one for one in lists) for item in range(ITEMS)])


@pytest.mark.parametrize(("power", "backward", "shrinkage"), [(1.0, 0.0, 0.0), (0.4, 0.3, 7.0)])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_markov_chain_equals_loops_over_sequences(
    steps: int, power: float, backward: float, shrinkage: float
) -> None:
    lists = log(0)
    counts = follow_loops(lists, steps, 0.6)
    counts += backward * counts.T
    shares = (counts / np.maximum(counts.sum(1) + shrinkage, 1e-9)[:, None]) ** power
    expected = np.zeros((len(HISTORIES), ITEMS))
    for query, history in enumerate(HISTORIES):
        for age, item in enumerate(history[::-1][:steps]):
            expected[query] += 0.65**age * shares[item]
    expected += 1e-6 * taken_by(lists) / taken_by(lists).max()
    fitted = MarkovChain.fit(
        *flat(lists),
        ITEMS,
        steps=steps,
        lag_decay=0.6,
        decay=0.65,
        power=power,
        backward=backward,
        shrinkage=shrinkage,
    )
    scores = fitted.score(*jagged(HISTORIES))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-8)


def test_one_step_is_the_share_of_what_came_next() -> None:
    lists = [[0, 1, 0, 2], [0, 1], [3]]  # after 0: 1 twice, 2 once
    chain = MarkovChain.fit(*flat(lists), 4, steps=1, power=1.0, shrinkage=0.0, backward=0.0)
    scores = chain.score(*jagged([[3, 0], [1], [2]]))
    np.testing.assert_allclose(scores[0], [0, 2 / 3, 1 / 3, 0], atol=2e-6)
    np.testing.assert_allclose(scores[1], [1, 0, 0, 0], atol=2e-6)
    # Nothing ever followed 2: by how many sequences hold an item, 0 and 1 two, the others one.
    assert np.argsort(-scores[2], kind="stable").tolist() == [0, 1, 2, 3]


def test_the_chain_learns_a_cycle_that_no_count_of_users_shows() -> None:
    cycle = [[(start + step) % ITEMS for step in range(6)] for start in range(ITEMS)] * 3
    histories = [[item] for item in range(ITEMS)]
    first = MarkovChain.fit(*flat(cycle), ITEMS).score(*jagged(histories)).argmax(1)
    assert first.tolist() == [(item + 1) % ITEMS for item in range(ITEMS)]


def test_what_stays_in_memory_is_bounded_by_rows_and_by_items() -> None:
    assert follow_bytes(100, 1_000_000) == 100 * 10 * 24
    assert follow_bytes(10**9, 50) == 50 * 50 * 24


@pytest.mark.parametrize("most", [1, 2, 100])
def test_last_steps_are_the_newest_and_age_0_is_the_last(most: int) -> None:
    found = list(
        zip(*(part.tolist() for part in last_steps(*jagged(HISTORIES), most)), strict=True)
    )
    expected = [
        (query, item, len(history) - 1 - place)
        for query, history in enumerate(HISTORIES)
        for place, item in enumerate(history)
        if len(history) - 1 - place < most
    ]
    assert found == expected


def slow_knn(
    lists: Lists, order: list[int], history: list[int], recent: int, neighbours: int, steps: int
) -> list[float]:
    """`order`: sessions, the latest first."""
    newest: dict[int, int] = {}
    for age, item in enumerate(history[::-1][:steps]):
        newest.setdefault(item, age)
    found: dict[int, list[int]] = defaultdict(list)
    for item, age in newest.items():
        for session in [one for one in order if item in lists[one]][:recent]:
            found[session].append(age)
    alike = []
    for session, ages in found.items():
        similarity = sum(0.7**age for age in ages) / math.sqrt(len(set(lists[session])))
        alike.append((-round(similarity, 9), order.index(session), session, min(ages)))
    scores = [0.0] * ITEMS
    for negative, _, session, age in sorted(alike)[:neighbours]:
        for item in set(lists[session]):
            idf = math.log(1 + len(lists) / sum(item in one for one in lists))
            scores[item] -= negative * max(0.1, 1 - 0.1 * age) * idf**2
    most = max(taken_by(lists))
    return [s + 1e-6 * n / most for s, n in zip(scores, taken_by(lists).tolist(), strict=True)]


@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize(
    ("recent", "neighbours", "steps"), [(100, 100, 10), (4, 100, 3), (9, 5, 10)]
)
def test_session_knn_equals_loops_over_sessions(
    clock: bool, recent: int, neighbours: int, steps: int
) -> None:
    lists = log(3)
    ends = np.random.default_rng(0).permutation(len(lists)) // 2  # two at a time end at once
    order = sorted(range(len(lists)), key=lambda one: (-ends[one] if clock else 0, -one))
    sequence, items = flat(lists, [3 * number + 1 for number in range(len(lists))])
    # The last event of a sequence says when it ended; the earlier ones say other things.
    time = np.concatenate(
        [[*range(len(one) - 1), 10 * end] for one, end in zip(lists, ends, strict=True)]
    )
    fitted = SessionKNN.fit(
        sequence,
        items,
        ITEMS,
        time=time if clock else None,
        recent=recent,
        neighbours=neighbours,
        steps=steps,
    )
    expected = [slow_knn(lists, order, one, recent, neighbours, steps) for one in HISTORIES]
    scores = fitted.score(*jagged(HISTORIES))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-8)
    nothing = fitted.score(*jagged([[], [ITEMS - 1]]))  # no neighbour at all
    np.testing.assert_allclose(nothing, [expected[1]] * 2, rtol=1e-5)


def test_of_sessions_alike_the_later_votes_and_an_old_match_still_counts_a_tenth() -> None:
    lists = [[0, 1], [0, 2], [3, 4]]
    fitted = SessionKNN.fit(*flat(lists), 5, neighbours=1, decay=1.0, idf_power=0.0)
    latest = fitted.score(*jagged([[0]]))[0]
    np.testing.assert_allclose(latest[[1, 2]], [0, 2**-0.5], atol=2e-6)
    long = SessionKNN.fit(*flat([[3, 4], [1, 2]]), 5, decay=1.0, idf_power=0.0, steps=20)
    far = long.score(*jagged([[3, *[0] * 15]]))[0]
    np.testing.assert_allclose(far[4], 0.1 * 2**-0.5, atol=2e-6)


def test_the_work_of_votes_grows_with_the_sessions_that_items_find() -> None:
    sequence = np.repeat([0, 5], [2, 6])  # sizes 2 and 6: an event sits in one of (4 + 36) / 8 = 5
    assert vote_products(sequence, 7) == 7 * (10 * 500 + 500 * 5)


def test_session_items_are_the_newest_first_and_then_the_popular() -> None:
    lists = [[1, 1, 1, 2], [2, 4], [2, 0], [4]]  # by sequences: 2 thrice, 4 twice, 0 and 1 once
    scores = SessionItems.fit(*flat(lists), 5).score(*jagged([[3, 0, 3, 1], [], [2]]))
    assert np.argsort(-scores, axis=1, kind="stable").tolist() == [
        [1, 3, 0, 2, 4],
        [2, 4, 0, 1, 3],
        [2, 4, 0, 1, 3],
    ]


def incidence(values: Lists, count: int) -> sparse.csr_array:
    ones = np.zeros((len(values), count), np.float32)
    for row, own in enumerate(values):
        ones[row, own] = 1
    return sparse.csr_array(ones)


GENRES: Lists = [[0], [1], [0, 2], [1, 2], [2], [0], [1], [3], [3], [0, 1, 2], [2, 4]]
BRANDS: Lists = [[item % 3] for item in range(ITEMS)]


def test_attribute_popularity_equals_loops() -> None:
    lists = log(5)
    counts = np.bincount(flat(lists)[1], minlength=ITEMS)
    follow = follow_loops(lists, 10, 0.6)
    expected = np.zeros((len(HISTORIES), ITEMS))
    means = np.zeros(ITEMS)
    for values, count in ((GENRES, 5), (BRANDS, 3)):
        share_of = np.zeros((ITEMS, count))  # of each value in an item
        for item, own in enumerate(values):
            share_of[item, own] = 1 / len(own)
        rows = share_of.T @ counts
        share = rows / rows.sum()
        means += share_of @ np.log((rows + 1) / (share_of.sum(0) + 1)) / 2
        pairs = share_of.T @ follow @ share_of
        for query, history in enumerate(HISTORIES):
            steps = np.zeros(ITEMS)
            for age, item in enumerate(history[::-1][:10]):
                steps[item] += 0.65**age
            held = share_of.T @ (steps / max(steps.sum(), 1e-9))
            chance = share * (1 - held.sum())
            for value in range(count):
                total = pairs[value].sum()
                chance += held[value] * (pairs[value] + 20 * share) / (total + 20)
            lift = [math.log(c / s) if s > 0 else 0.0 for c, s in zip(chance, share, strict=True)]
            expected[query] += share_of @ lift
    expected += np.where(counts > 0, np.log(np.maximum(counts, 1)), means)
    fitted = AttributePopularity.fit(
        *flat(lists), ITEMS, [incidence(GENRES, 5), incidence(BRANDS, 3)]
    )
    scores = fitted.score(*jagged(HISTORIES))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_new_items_are_ranked_by_what_follows_their_category() -> None:
    # Categories 0: items 0, 1; 1: items 2, 3; new: 4 of category 0, 5 of 1. Categories alternate.
    sequence, items = flat([[0, 2, 1, 3, 0, 3], [1, 2, 0, 2]] * 20)
    values = incidence([[0], [0], [1], [1], [0], [1]], 2)
    fitted = AttributePopularity.fit(sequence, items, 6, [values], steps=1)
    after_0, after_1, nothing = fitted.score(*jagged([[3, 0], [0, 3], []]))
    assert after_0[5] > after_0[4]
    assert after_1[4] > after_1[5]
    # With one category the score is P(category | history) times the item's share in it.
    of_category = np.exp(after_0[[2, 3]]) / np.exp(after_0[[2, 3]]).sum()
    counts = np.bincount(items)
    np.testing.assert_allclose(of_category, counts[[2, 3]] / counts[[2, 3]].sum(), rtol=1e-5)
    np.testing.assert_allclose(np.exp(nothing[:4]), counts[:4], rtol=1e-5)


def test_attributes_are_the_categories_of_the_items_but_not_their_id(dataset: Dataset) -> None:
    found = item_values(dataset)
    features = [
        feature
        for feature in dataset.schema.features_of("items")
        if feature.kind in ("categorical", "multi_categorical")
        and not dataset.schema.is_id(feature)
    ]
    assert {feature.kind for feature in features} >= {"categorical"}
    assert len(found) == len(features)
    for feature, values in zip(features, found, strict=True):
        column = dataset.tables.items.column(feature.source_column).to_pylist()
        sets = [frozenset(v) if isinstance(v, list) else frozenset([v]) for v in column]
        alike = (values @ values.T).toarray()
        for i, j in ((0, 1), (3, 77), (5, 20), (8, 8), (2, 119)):
            assert alike[i, j] == len(sets[i] & sets[j])


def test_a_table_without_categories_has_no_attributes(dataset: Dataset) -> None:
    of_items = dataset.schema.features_of("items")
    others = tuple(
        feature
        for feature in dataset.schema.features
        if feature not in of_items or "categorical" not in feature.kind
    )
    bare = replace(dataset, schema=dataset.schema.model_copy(update={"features": others}))
    assert item_values(bare) == []
