"""Distinct values and membership: what NumPy's slower functions say, whatever the array."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from recsys.core.distinct import distinct, distinct_codes, distinct_counts, first_places, is_among

Values = NDArray[Any]
WHOLE = ("int8", "int32", "int64", "uint8", "uint64")


@st.composite
def whole_numbers(draw: st.DrawFn, count: int = 1) -> Any:
    """Whole numbers of one type: near each other and to an end of the type, or anywhere."""
    dtype = np.dtype(draw(st.sampled_from(WHOLE)))
    limits = np.iinfo(dtype)
    low = draw(st.sampled_from([limits.min, max(limits.min, -3), limits.max - 6]))
    near = st.integers(low, low + 6)
    numbers = draw(st.sampled_from([near, near | st.integers(limits.min, limits.max)]))
    found = [np.array(draw(st.lists(numbers, max_size=30)), dtype) for _ in range(count)]
    return found[0] if count == 1 else found


FLOATS = arrays.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 20),
    elements=st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, 1e30, -2.0]),
)
TEXT = st.lists(st.text("ab", max_size=2), max_size=12).map(lambda words: np.array(words, str))
BOOLEANS = st.lists(st.booleans(), max_size=5).map(lambda values: np.array(values, bool))
VALUES = whole_numbers() | FLOATS | TEXT | BOOLEANS


def same(found: Values, expected: Values, dtype: Any) -> None:
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@given(VALUES)
def test_distinct_values_are_numpys(values: Values) -> None:
    expected, first, codes, counts = np.unique(
        values, return_index=True, return_inverse=True, return_counts=True
    )
    same(distinct(values), expected, values.dtype)
    same(first_places(values), first, np.int64)
    for found, number, of_numpy in (
        (*distinct_codes(values), codes),
        (*distinct_counts(values), counts),
    ):
        same(found, expected, values.dtype)
        same(number, of_numpy, np.int64)


@given(whole_numbers(2) | st.tuples(FLOATS, FLOATS) | st.tuples(TEXT, TEXT))
def test_membership_is_numpys(both: tuple[Values, Values]) -> None:
    values, known = both
    same(is_among(values, known), np.isin(values, known), np.bool_)


def small(rng: np.random.Generator, size: int) -> Values:
    return rng.integers(0, size // 2, size)


def wide(rng: np.random.Generator, size: int) -> Values:
    return (rng.integers(0, size // 2, size).astype(np.uint64) * np.uint64(2**64 // size)).view(
        "i8"
    )


@pytest.mark.parametrize("drawn", [small, wide])
@pytest.mark.parametrize(
    ("num_values", "num_known"), [(60_000, 50_000), (60_000, 100), (9, 60_000)]
)
def test_many_values(
    drawn: Callable[[np.random.Generator, int], Values], num_values: int, num_known: int
) -> None:
    rng = np.random.default_rng(0)
    pool = drawn(rng, 100_000)
    values, known = rng.choice(pool, num_values), rng.choice(pool, num_known)
    found = is_among(values, known)
    assert 0 < found.sum() < num_values
    same(found, np.isin(values, known), np.bool_)
    expected = np.unique(values, return_inverse=True, return_index=True, return_counts=True)
    for one, of_numpy in zip(
        (
            distinct(values),
            first_places(values),
            distinct_codes(values)[1],
            distinct_counts(values)[1],
        ),
        expected,
        strict=True,
    ):
        same(one, of_numpy, np.int64)


@pytest.mark.parametrize("dtype", WHOLE)
def test_numbers_at_both_ends_of_a_type_are_themselves(dtype: str) -> None:
    limits = np.iinfo(dtype)
    for ends in ([limits.min, limits.min + 1, limits.min], [limits.max, limits.max - 1]):
        values = np.array(ends, dtype)
        same(distinct_codes(values)[0], np.unique(values), dtype)
        same(
            is_among(np.array([limits.min, limits.max], dtype), values),
            np.isin([limits.min, limits.max], ends),
            bool,
        )
    every = np.arange(-128, 128).astype(np.int8)
    same(distinct_codes(every)[0], every, np.int8)


def test_numbers_that_do_not_compare_exactly_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot look int64 values up among uint64 ones exactly"):
        is_among(np.array([2**62 + 1]), np.array([2**62], np.uint64))
