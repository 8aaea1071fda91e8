"""Odds of sampling by hand: what a loop over all batches would count."""

from itertools import combinations
from math import exp, log

import numpy as np
import pytest

from recsys.features.batches.sampling import log_inclusion_of_draws, log_missed_targets


def missed(
    windows: list[int], items: list[int], asked: list[float], *, one: bool = False, size: int = 2
) -> list[float]:
    """Return the probability that no target is item 0, 1, 2: 5 windows, `size` of them a batch."""
    found = log_missed_targets(
        np.array(windows),
        np.array(items),
        np.array(asked),
        num_items=3,
        num_windows=5,
        batch_size=size,
        one_a_window=one,
    )
    return [exp(value) for value in found]


def test_windows_that_ask_surely_are_drawn_without_replacement() -> None:
    holders = {0: {0, 1, 3}, 1: {4}, 2: {0, 2, 3, 4}}
    pairs = [(window, item) for item, some in holders.items() for window in some]
    for size in (1, 2, 3, 5):
        batches = [set(one) for one in combinations(range(5), size)]
        expected = [
            sum(not (batch & holders[item]) for batch in batches) / len(batches)
            for item in range(3)
        ]
        windows, items = zip(*pairs, strict=True)
        found = missed(list(windows), list(items), [1.0] * len(pairs), size=size)
        assert found == pytest.approx(expected, abs=1e-9)


def test_a_window_asks_by_chance() -> None:
    """Item 0 in one window, by one step; item 1 twice in one window, item 2 nowhere."""
    windows, items = [3, 1, 1], [0, 1, 1]
    alone = missed(windows, items, [0.25, 0.5, 0.5])
    assert alone == pytest.approx([1 - 0.25 * 2 / 5, 1 - 0.75 * 2 / 5, 1])
    one_step = missed(windows, items, [0.25, 0.5, 0.5], one=True)
    assert one_step == pytest.approx([1 - 0.25 * 2 / 5, 1 - 1 * 2 / 5, 1])
    every = missed(windows, items, [0.25, 0.5, 0.5], size=5)
    assert every == pytest.approx([0.75, 0.25, 1])


def test_the_ways_of_drawing_miss_one_by_one() -> None:
    counts, drawable = np.array([6, 3, 1, 0]), np.array([0, 1, 3])
    found = log_inclusion_of_draws(
        counts, drawable, np.log([0.5, 1, 1, 1]), uniform_negatives=2, frequent_negatives=3
    )
    wanted = [
        1 - 0.5 * (1 - 0.6) ** 3 * (1 - 1 / 3) ** 2,
        1 - (1 - 0.3) ** 3 * (1 - 1 / 3) ** 2,
        1 - (1 - 0.1) ** 3,
        1 - (1 - 1 / 3) ** 2,
    ]
    assert found.tolist() == pytest.approx([log(one) for one in wanted], abs=1e-6)
    assert found.dtype == np.float32
    nothing = log_inclusion_of_draws(
        counts, drawable, None, uniform_negatives=0, frequent_negatives=0
    )
    assert nothing.tolist() == pytest.approx([log(1 / 10)] * 4)
