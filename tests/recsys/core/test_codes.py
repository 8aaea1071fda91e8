"""Codes are counted and looked up a part at a time as NumPy does it at once."""

import numpy as np
import pytest

from recsys.core import codes as module
from recsys.core.codes import counts_of, looked_up, value_at_ranks


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_A_TIME", 64)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1000])
def test_counts_and_look_ups_are_those_of_numpy(rows: int) -> None:
    rng = np.random.default_rng(rows)
    codes = rng.integers(0, 40, rows).astype(np.int32)
    chosen = rng.random(rows) < 0.5
    assert np.array_equal(counts_of(codes, 50), np.bincount(codes, minlength=50))
    some = np.bincount(codes[chosen], minlength=50)
    assert np.array_equal(counts_of(codes, 50, chosen), some)
    names = rng.integers(-9, 9, 40).astype(np.int32)
    found = looked_up(names, codes)
    assert np.array_equal(found, names[codes])
    assert found.dtype == names.dtype


@pytest.mark.parametrize("spread", [1, 3, 2**20, 2**62])
def test_values_at_ranks_are_those_of_the_sorted_values(spread: int) -> None:
    rng = np.random.default_rng(spread % 7)
    values = rng.integers(-spread, spread, 1500)
    values[rng.random(1500) < 0.3] = spread // 2
    ranks = [0, 5, 700, 701, 1499]
    assert value_at_ranks(values, ranks) == np.sort(values)[ranks].tolist()


def test_values_too_far_apart_for_their_difference_are_in_order_too() -> None:
    ends = np.iinfo(np.int64)
    values = np.array([ends.max, 0, ends.min] * 40)
    assert value_at_ranks(values, [0, 60, 119]) == [ends.min, 0, ends.max]
