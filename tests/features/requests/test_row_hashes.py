"""Hashes of rows: equal where rows are equal, and nowhere else."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.requests.row_hashes import row_hashes

WORDS = st.sampled_from(["", "a", "b", "ab"]) | st.none()
ROWS = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["u1", "u2"]),
        "history": st.lists(WORDS, max_size=3) | st.none(),
        "times": st.lists(st.integers(0, 2), max_size=3),
        "age": st.sampled_from([0, 1, None]),
        "price": st.sampled_from([0.0, 0.5, None]),
    }
)
KINDS = pa.schema(
    {
        "user": pa.string(),
        "history": pa.large_list(pa.string()),
        "times": pa.list_(pa.int64()),
        "age": pa.int64(),
        "price": pa.float64(),
    }
)


@given(st.lists(ROWS, max_size=12))
def test_rows_share_a_hash_where_they_are_equal(rows: list[dict[str, Any]]) -> None:
    hashes = row_hashes(pa.Table.from_pylist(rows, KINDS)).tolist()
    for row, one in zip(rows, hashes, strict=True):
        for other, two in zip(rows, hashes, strict=True):
            assert (row == other) == (one == two)


def hash_of(values: list[Any], kind: pa.DataType | None = None, name: str = "x") -> list[int]:
    return row_hashes(pa.table({name: pa.array(values, kind)})).tolist()  # type: ignore[no-any-return]


def test_the_type_that_holds_a_value_and_the_place_of_a_row_do_not_matter() -> None:
    texts = ["a", None, "b", "a"]
    assert hash_of(texts, pa.string()) == hash_of(texts, pa.large_string())
    assert (
        hash_of(texts) == row_hashes(pa.table({"x": pa.array(texts).dictionary_encode()})).tolist()
    )
    assert hash_of([1, None], pa.int8()) == hash_of([1, None], pa.int64())
    assert hash_of([1.5, None], pa.float32()) == hash_of([1.5, None], pa.float64())
    lists = [["a"], [], None, ["b", "a"]]
    assert hash_of(lists, pa.list_(pa.string())) == hash_of(lists, pa.large_list(pa.string()))
    table = pa.table({"x": lists, "y": texts})
    assert row_hashes(table).tolist() == row_hashes(table.select(["y", "x"])).tolist()
    assert row_hashes(table.slice(1, 2)).tolist() == row_hashes(table).tolist()[1:3]
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert row_hashes(chunked).tolist() == row_hashes(table).tolist()


def test_what_could_be_confused_is_told_apart() -> None:
    assert len({*hash_of([[], None, [None], [None, None]], pa.list_(pa.string()))}) == 4
    assert len({*hash_of([["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", "a"]])}) == 5
    assert hash_of(["a"]) != hash_of(["a"], name="y")
    two = pa.table({"x": ["a", "b"], "y": ["b", "a"]})
    assert len({*row_hashes(two).tolist()}) == 2
    assert hash_of([0.0], pa.float64()) == hash_of([-0.0], pa.float64())
    assert hash_of([float("nan")]) == hash_of([float(np.float64("-nan"))])
    assert hash_of([[[1, 2], [3]]]) != hash_of([[[1], [2, 3]]])


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.date32(), pa.duration("s"), pa.time32("s"), pa.time64("us")]
)
def test_times_and_other_types_are_hashed(kind: pa.DataType) -> None:
    values = pa.array([1, 2, None, 1]).cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    first, second, third, fourth = row_hashes(pa.table({"x": values.cast(kind)})).tolist()
    assert first == fourth
    assert len({first, second, third}) == 3
    structs = [{"a": 1}, {"a": 2}, None, {"a": 1}]
    first, second, third, fourth = hash_of(structs)
    assert (first == fourth, len({first, second, third})) == (True, 3)


def test_hashes_are_the_same_on_every_machine() -> None:
    table = pa.table({"user": ["u1", "u2"], "history": [["a", "b"], []], "age": [30, None]})
    assert row_hashes(table).tolist() == [4_377_763_112_071_420_968, 8_469_162_636_242_907_534]
