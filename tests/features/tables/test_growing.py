"""Columns that grow by appending."""

import numpy as np
import pytest

from recsys.features.tables.growing import GrowingArray, GrowingRows


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.bool_])
def test_what_was_appended_is_there_in_order(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2, (size, *shape)).astype(dtype) for size in (5, 0, 70_000, 200_000)]
    grown = GrowingArray(dtype, *shape)
    for part in parts:
        grown.append(part)
    assert np.array_equal(grown.values(), np.concatenate(parts))


def test_a_view_that_was_handed_out_stays_what_it_was() -> None:
    grown = GrowingArray(np.int32)
    grown.append(np.arange(10, dtype=np.int32))
    before = grown.values()
    grown.append(np.arange(200_000, dtype=np.int32))
    assert before.tolist() == list(range(10))
    assert grown.values()[10:].tolist() == list(range(200_000))


@pytest.mark.parametrize(
    "parts",
    [
        [[0, 1, 2], [3, 4]],
        [[0, 1, 2], [4, 5], [6]],
        [[0, 2], [3, 4]],
        [[1, 2], [3]],
        [[0], [1, 3], [4]],
    ],
)
def test_row_numbers_are_those_that_were_added(parts: list[list[int]]) -> None:
    rows = GrowingRows()
    for part in parts:
        rows.append(np.array(part))
    assert rows.values().tolist() == [row for part in parts for row in part]
