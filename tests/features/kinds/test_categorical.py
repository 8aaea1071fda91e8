"""Categorical features: one value, one hash; ids of other types never compare."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.core.errors import DataError
from recsys.features.encoding.hashing import NULL_HASH, hash_values

BRAND = {"name": "brand", "table": "items", "kind": "categorical"}


def _columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    shares = [0.8, 0.15, 0.05]
    return {name: rng.choice(["x", "y", "z"], count, p=shares) for name in ("brand", "maker")}


CASE = {
    "base": BRAND,
    "columns": _columns,
    "values": {
        "column": ["brand", "maker"],
        "multiplicity": [4, 5, "auto"],
        "min_count": [1, 40, 10_000],
    },
}


def test_a_value_is_its_hash_and_null_has_its_own(encode: Callable[..., Any]) -> None:
    layout, encoded, types = encode({**BRAND, "multiplicity": 2}, pa.array(["a", None, "a"]))
    (a,) = hash_values(pa.array(["a"])).tolist()
    assert encoded.single[0].tolist() == [a, NULL_HASH, a]
    assert (encoded.multi, encoded.dense) == ([], [])
    assert (layout.single, layout.multi, layout.dense) == ((("brand", 2),), (), ())
    assert types == {"brand": pa.string()}
    assert encode(BRAND, pa.array([True, False]))[2] == {"brand": pa.bool_()}


def test_values_of_another_type_than_fitted_are_refused(encode: Callable[..., Any]) -> None:
    message = "'brand': holds integer values, the model was trained on string values; cast the"
    with pytest.raises(DataError, match=message):
        encode(BRAND, pa.array([1]), fit=pa.array(["1"]))


@pytest.mark.parametrize(
    ("name", "values", "of_clicks", "options"),
    [
        ("brand", ["a", "b", "a"], False, {}),
        ("n", [1, 2, 2], False, {}),
        ("in_stock", [True, False, True], False, {}),
        ("shop_id", list(range(100)) * 2, False, {}),
        ("n", list(range(100)) * 5, True, {"multiplicity": "auto"}),
        ("n", list(range(100)) * 5, False, None),  # more likely a number
        ("price", list(range(100)) * 5, True, None),
        ("n", [0.5, 1.5], False, None),
    ],
)
def test_codes_and_text_that_comes_again_are_proposed(
    name: str, values: list[Any], of_clicks: bool, options: Any, propose: Callable[..., Any]
) -> None:
    found = propose(name, pa.array(values), "categorical", of_clicks=of_clicks)
    assert (None if found is None else found.options) == options


def test_text_of_another_value_in_every_row_is_left_out(propose: Callable[..., Any]) -> None:
    found = propose("serial", pa.array(["a", "b", "c"]), "categorical")
    assert (found.kind, found.comment[:30]) == ("", "another value in every row: sa")
