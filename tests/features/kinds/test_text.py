"""Text features: lower-cased words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.encoding.hashing import NULL_HASH, hash_values

TITLE = {"name": "title", "table": "items", "kind": "text"}


def _columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    words, shares = ["red", "hat", "<b>shoe</b>"], [0.8, 0.15, 0.05]
    return {
        name: [" ".join(rng.choice(words, 3, p=shares)) for _ in range(count)]
        for name in ("title", "plot")
    }


CASE = {
    "base": TITLE,
    "columns": _columns,
    "values": {
        "column": ["title", "plot"],
        "multiplicity": [4, 5, "auto"],
        "min_count": [1, 100, 10_000],
        "clean": [None, "html"],
    },
}


def test_words_are_runs_of_letters_and_digits(encode: Callable[..., Any]) -> None:
    texts = pa.array(["Red, red SHOE-42", " !", None, "\u00c9t\u00e9"])
    layout, encoded, types = encode({**TITLE, "multiplicity": 3}, texts)
    words = hash_values(pa.array(["red", "red", "shoe", "42"])).tolist()
    (last,) = hash_values(pa.array(["\u00e9t\u00e9"])).tolist()
    assert encoded.multi[0].values.tolist() == [*words, NULL_HASH, NULL_HASH, last]
    assert encoded.multi[0].offsets.tolist() == [0, 4, 5, 6, 7]
    assert (layout.multi, layout.pooling) == ((("title", 3),), ("mean",))
    assert types == {"title": pa.string()}


@pytest.mark.parametrize(
    ("values", "is_text"),
    [
        (["a red hat", "a blue hat"], True),
        (["red hat", "blue hat"], True),
        (["red hat", "red hat", "blue hat", "blue hat"], False),
        (["hat", "shoe"], False),
        ([1, 2], False),
    ],
)
def test_text_of_several_words_is_proposed(
    values: list[Any], is_text: bool, propose: Callable[..., Any]
) -> None:
    found = propose("title", pa.array(values), "text")
    assert (found is not None) == is_text
    if found is not None:
        assert found.values == len({word for text in values for word in text.split()})


HTML = [
    (
        "<p>Ein <b>Pre</b>mium Artikel &amp; mehr.<br/>F&uuml;r</p>",
        "ein premium artikel mehr f\u00fcr",
    ),
    ("a < b and c", "a b and c"),
    ("x<style>p {red}</style>y<!-- no --> <script>if (a<b) z()</script>w", "x y w"),
    ("&#39;s &lt;b&gt;", "s b"),
    ("<a href='/shoe'>hat</a>", "hat"),
]


@pytest.mark.parametrize(("html", "words"), HTML)
def test_html_is_taken_out(encode: Callable[..., Any], html: str, words: str) -> None:
    cleaned = encode({**TITLE, "clean": "html"}, pa.array([html, None]))[1]
    plain = encode(TITLE, pa.array([words, None]))[1]
    for one, other in zip(cleaned.multi, plain.multi, strict=True):
        assert one.values.tolist() == other.values.tolist()
        assert one.offsets.tolist() == other.offsets.tolist()
