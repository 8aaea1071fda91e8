"""How often histories come back to an item: by hand, slowly, and beside chance."""

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.retrieval.recurrence import Recurrence

Lists = list[list[int]]


def of(sequences: Lists, window: int) -> Recurrence:
    owner = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    return Recurrence.of(owner, np.array([*chain(*sequences)], np.int32), window)


def test_by_hand() -> None:
    found = of([[4, 4, 7, 4], [4], [7, 8, 9, 7]], 50)
    assert found.steps == 6
    assert found.share == 3 / 6  # 4, 4 and 7 again; the second 4 stands alone
    assert of([[4, 4, 7, 4], [4], [7, 8, 9, 7]], 2).share == 2 / 6
    assert of([[1], [2]], 50) == Recurrence(0, 0.0, 0.0)
    assert of([], 50) == Recurrence(0, 0.0, 0.0)


@given(st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=6), st.integers(1, 9))
def test_as_step_by_step(sequences: Lists, window: int) -> None:
    back = [
        item in one[max(0, step - window) : step]
        for one in sequences
        for step, item in enumerate(one)
        if step
    ]
    found = of(sequences, window)
    assert found.steps == len(back)
    assert found.share == (np.mean(back) if back else 0)


def test_chance_is_what_popularity_gives() -> None:
    rng = np.random.default_rng(3)
    popularity = np.array([0.5, 0.3, 0.1, 0.1])
    drawn = rng.choice(4, (4000, 3), p=popularity).tolist()
    wanted = [(popularity**2).sum(), 1 - (popularity * (1 - popularity) ** 2).sum()]
    found = of(drawn, 50)
    assert abs(found.by_chance - np.mean(wanted)) < 0.01
    assert abs(found.by_chance - found.share) < 0.02
    apart = [rng.permutation(4)[:3].tolist() for _ in range(4000)]
    assert of(apart, 50).share == 0
    assert abs(of(apart, 50).by_chance - np.mean([1 / 4, 1 - (3 / 4) ** 2])) < 0.02


def test_in_words() -> None:
    words = Recurrence(1234, 0.2002, 0.0004).in_words()
    assert words == (
        "20.02% of 1,234 steps are an item of the same history again, by chance 0.04% would be"
    )
