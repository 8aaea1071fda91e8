"""Multi-categorical features: lists, and text that is cut."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.core.errors import DataError
from recsys.features.encoding.hashing import NULL_HASH, hash_values

TAGS = {"name": "tags", "table": "items", "kind": "multi_categorical", "separator": "|"}


def _columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    shares = 4.0 ** -np.arange(4)
    tags, genres = (
        [
            rng.choice(list("abcd"), rng.integers(1, 4), p=shares / shares.sum())
            for _ in range(count)
        ]
        for _ in range(2)
    )
    return {
        "tags": ["|".join(one) + ";z" for one in tags],
        "genres": ["|".join(one) for one in genres],
        "shares": [rng.random(len(one)).tolist() for one in tags],
        "halves": [[0.5 * (place + 1) for place, _ in enumerate(one)] for one in tags],
    }


CASE = {
    "base": TAGS,
    "columns": _columns,
    "values": {
        "column": ["tags", "genres"],
        "separator": ["|", ";"],
        "weights": [None, "shares", "halves"],
        "multiplicity": [4, 5, "auto"],
        "min_count": [1, 40, 10_000],
    },
}


def test_lists_and_text_give_the_same_values(encode: Callable[..., Any]) -> None:
    text = pa.array(["b| a", "", None, "b"])
    lists = pa.array([["b", "a"], [], None, ["b"]])
    a, b = hash_values(pa.array(["a", "b"])).tolist()
    for column in (text, lists, text.dictionary_encode()):
        layout, encoded, types = encode({**TAGS, "pooling": "sum"}, column)
        assert encoded.multi[0].values.tolist() == [b, a, NULL_HASH, NULL_HASH, b]
        assert encoded.multi[0].offsets.tolist() == [0, 2, 3, 4, 5]
        assert encoded.multi[0].weights is None
        assert (layout.multi, layout.pooling) == ((("tags", 1),), ("sum",))
        assert types == {"tags": pa.string()}
    plain = {**TAGS, "separator": None, "weights": "w"}
    types = encode(plain, lists, pa.array([[1.0, 2.0], [], None, [1.0]]))[2]
    assert types == {"tags": pa.list_(pa.string()), "w": pa.list_(pa.float64())}


def test_text_needs_a_separator(encode: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="'tags': text where a list is expected; give the"):
        encode({**TAGS, "separator": None}, pa.array(["a|b"]))


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([["a", "b"], ["a"]], {}),
        ([[1, 2], [1]], {}),
        ([[1.5, 2.0], [1.0]], None),
        (["a|b", "a|b", "b|a", "a|b"], {"separator": "|"}),
        (["a;b", "a;b", "b;a", "a;b"], {"separator": ";"}),
        (["a", "b", "a"], None),
    ],
)
def test_lists_and_separated_text_are_proposed(
    values: list[Any], options: Any, propose: Callable[..., Any]
) -> None:
    found = propose("tags", pa.array(values), "multi_categorical")
    assert (None if found is None else found.options) == options
    if found is not None:
        found = propose("tags", pa.array(values), "multi_categorical", of_clicks=True)
        assert found.options == {"multiplicity": "auto", **options}
        assert found.comment == "2 values"
