"""Numeric features: scaled numbers, numbers of bins, or a category of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.encoding.hashing import NULL_HASH, hash_values

PRICE = {"name": "price", "table": "items", "kind": "numeric"}


def _columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    return {name: rng.lognormal(2, 1, count) for name in ("price", "cost")}


CASE = {
    "base": PRICE,
    "columns": _columns,
    "values": {"column": ["price", "cost"], "bins": [None, 3, 5, "log_squared"]},
    "needs": {"bins": {"transform": "discretise"}},
}


def test_a_number_is_scaled_and_null_is_told(encode: Callable[..., Any]) -> None:
    layout, encoded, types = encode(PRICE, pa.array([1.0, 3.0, None]))
    assert np.stack(encoded.dense, axis=1).tolist() == [[-1, 0], [1, 0], [0, 1]]
    assert layout.dense == ("price", "price.null")
    assert types == {"price": pa.float64()}


def test_bins_are_numbers_or_a_category(encode: Callable[..., Any]) -> None:
    numbers = pa.array([0.0, 1.0, 2.0, 4.0, None])
    layout, encoded, _ = encode({**PRICE, "transform": "piecewise", "bins": 2}, numbers)
    assert layout.dense == ("price.0", "price.1", "price.null")
    expected = [[0, 0, 0], [2 / 3, 0, 0], [1, 0.2, 0], [1, 1, 0], [0, 0, 1]]
    assert np.allclose(np.stack(encoded.dense, axis=1), expected)  # the median is 1.5
    layout, encoded, _ = encode({**PRICE, "transform": "discretise", "bins": 2}, numbers)
    low, high = hash_values(pa.array([0, 1])).tolist()
    assert encoded.single[0].tolist() == [low, low, high, high, NULL_HASH]
    assert (layout.single, layout.dense, encoded.dense) == ((("price", 1),), (), [])


@pytest.mark.parametrize(
    ("values", "of_clicks", "options"),
    [
        ([0.5, 1.5, 2.0], False, {}),
        ([1.0, 1.0, 1.5, 100.0], False, {"transform": "log1p"}),
        ([*range(20), *[0, 1] * 20, 5000], True, {"transform": "log1p"}),
        (["a", "b"], False, None),
        ([True, False], False, None),
    ],
)
def test_numbers_are_proposed_with_their_scale(
    values: list[Any], of_clicks: bool, options: Any, propose: Callable[..., Any]
) -> None:
    found = propose("n", pa.array(values), "numeric", of_clicks=of_clicks)
    assert (None if found is None else found.options) == options
