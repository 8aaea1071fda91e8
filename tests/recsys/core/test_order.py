"""The stable order of rows by whole numbers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.core.order import narrowed, stable_order

INT64 = np.iinfo(np.int64)


def numbers(values: NDArray[np.int64]) -> tuple[list[int], int]:
    near = narrowed(values)
    assert near is not None
    return near[0].tolist(), near[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (5, 7),  # keys and rows in one number
        (40, 2**31),
        (2**30, 2**31),  # keys in one number, not the rows: parted by some bits of the first
        (2**19, 2**33),
        (2**8, 2**42),  # by as few as there are
        (2**40, 2**40),  # no one number holds the keys
    ],
)
def test_rows_are_in_the_order_of_lexsort(first: int, second: int) -> None:
    rng = np.random.default_rng(first)
    few = rng.integers(-first, first, 300), rng.integers(-second, second, 300)
    picks = rng.integers(0, 300, 5000), rng.integers(0, 300, 5000)
    one, two = few[0][picks[0]], few[1][picks[1] % 9]
    assert np.array_equal(stable_order(one, two), np.lexsort((two, one)))
    assert np.array_equal(stable_order(one), np.argsort(one, kind="stable"))


def test_ends_of_the_numbers_and_no_rows_are_in_order() -> None:
    far = np.array([INT64.max, 0, INT64.min, 0])
    assert narrowed(far) is None
    assert stable_order(far).tolist() == [2, 1, 3, 0]
    assert stable_order(np.array([INT64.max, 0, INT64.max, 1])).tolist() == [1, 3, 0, 2]
    assert stable_order(np.array([], np.int32)).tolist() == []
    assert stable_order(np.array([3], np.int32)).tolist() == [0]


def test_multiples_of_a_step_become_close_and_others_stay() -> None:
    seconds = np.array([5, 3, 9_000, 3]) * 1_000_000
    assert numbers(seconds) == ([2, 0, 8997, 0], 8997)
    others = np.add(seconds, [0, 0, 1, 0])
    assert numbers(others) == ([2_000_000, 0, 8_997_000_001, 0], 8_997_000_001)


def test_a_step_that_a_sample_has_and_the_rows_have_not_is_none() -> None:
    times = np.arange(4000) * 1_000_000
    times[1] += 1  # not in a sample of every fourth row
    assert numbers(times) == (times.tolist(), times[-1])


def test_rows_are_parted_in_the_same_order_where_one_part_has_nearly_all() -> None:
    rng = np.random.default_rng(0)
    users = np.where(rng.random(200_000) < 0.9, 7, rng.integers(0, 2**20, 200_000))
    times = rng.integers(0, 2**32, 200_000) * 1_000_000 + 1_600_000_000_000_000
    order = stable_order(users.astype(np.int32), times)
    assert np.array_equal(order, np.lexsort((times, users)))
