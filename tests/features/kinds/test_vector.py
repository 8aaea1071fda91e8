"""Vector features: their numbers as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.core.errors import DataError

LOOK = {"name": "look", "table": "items", "kind": "vector", "dim": 2}


def _columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    return {name: rng.normal(size=(count, 2)).tolist() for name in ("look", "sound")}


CASE = {
    "base": LOOK,
    "columns": _columns,
    "values": {"column": ["look", "sound"], "dim": [2, 3]},
}


def test_numbers_are_kept_and_null_is_told(encode: Callable[..., Any]) -> None:
    layout, encoded, types = encode(LOOK, pa.array([[0.5, 2.0], None, [1.0, -3.0]]))
    assert np.stack(encoded.dense, axis=1).tolist() == [[0.5, 2, 0], [0, 0, 1], [1, -3, 0]]
    assert layout.dense == ("look.0", "look.1", "look.null")
    assert types == {"look": pa.list_(pa.float64())}


def test_another_length_is_refused(encode: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"row 2, column 'look': a vector of 1 numbers where dim"):
        encode(LOOK, pa.array([[0.5, 2.0], [1.0]]))


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([[0.5, 1.0, 2.0], [1.5, 0.0, 1.0]], {"dim": 3}),
        ([[1, 2], [3, 4]], None),
        ([0.5, 1.0], None),
    ],
)
def test_lists_of_floats_of_one_length_are_proposed(
    values: list[Any], options: Any, propose: Callable[..., Any]
) -> None:
    found = propose("look", pa.array(values), "vector")
    assert (None if found is None else found.options) == options


def test_floats_of_unlike_length_are_left_out(propose: Callable[..., Any]) -> None:
    found = propose("look", pa.array([[0.5, 1.0], [1.5]]), "vector")
    assert found.kind == ""
    assert "lists of floats of 1 to 2 numbers" in found.unsure
