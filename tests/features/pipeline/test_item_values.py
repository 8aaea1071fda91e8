"""The values of a column as codes: distinct in an item, equal where the values are."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.pipeline.item_values import ItemValues, ranks_among_equals


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["x", None, "x"], None, ["y", "x", "x"]], pa.list_(pa.string(), 3)),
        pa.array([["x", "x"], None, ["y", "x"]], pa.large_list(pa.large_string())),
        pa.array([[2, 2], None, [3, 2]], pa.list_(pa.uint8())),
        pa.array([[False], [True], [], [False, True]]).slice(1),
    ],
    ids=lambda values: str(values.type),
)
def test_lists_have_distinct_codes(values: pa.Array) -> None:
    found = ItemValues.of(values)
    assert found is not None
    assert found.single is None
    own = found.of_rows(np.asarray([0, 1, 2, -1]))
    assert own.lengths().tolist() == [1, 0, 2, 0]
    assert own.values[0] in own.values[1:]


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["x", None, "", "x"]),
        pa.array(["x", None, "", "x"]).dictionary_encode(),
        pa.array([2**60, None, 2**60 + 1, 2**60]),
        pa.array([True, None, False, True]),
        pa.array([["x"], None, ["y"], ["x"]]),
        pa.array([["x"], [None], ["y"], ["x"]]),
    ],
    ids=lambda values: str(values.type),
)
def test_an_item_of_one_value_has_its_code(values: pa.Array) -> None:
    found = ItemValues.of(values)
    assert found is not None
    assert found.single is not None
    first, none, other, again, no_item = found.single.tolist()
    assert first == again
    assert first != other
    assert min(first, other) >= 0
    assert none == no_item == -1


@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.timestamp("s"), pa.list_(pa.float64()), pa.list_(pa.list_(pa.int8()))]
)
def test_other_types_have_no_codes(kind: Any) -> None:
    assert ItemValues.of(pa.nulls(2, kind)) is None


@pytest.mark.parametrize("kind", [pa.null(), pa.string(), pa.list_(pa.null())])
@pytest.mark.parametrize("size", [0, 2])
def test_nulls_are_no_values(kind: Any, size: int) -> None:
    found = ItemValues.of(pa.nulls(size, kind))
    assert found is not None
    assert found.single is not None
    assert found.single.tolist() == [-1] * (size + 1)


def test_ranks_count_equal_codes_of_the_same_request() -> None:
    codes = np.asarray([[1, 0, 1, -1, 1], [0, -1, -1, 0, 1]])
    assert ranks_among_equals(codes).tolist() == [[0, 0, 1, 0, 2], [0, 0, 0, 1, 0]]
    assert ranks_among_equals(codes[:0]).shape == (0, 5)
