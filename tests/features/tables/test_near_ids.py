"""Ids that match once they are written in one way: what is found, and what is left alone."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.tables.id_forms import IdForm
from recsys.features.tables.near_ids import near_match, spellings

NUMBERS = np.unique(np.random.default_rng(0).integers(1, 10**6, 600))[:500]
TEXT = [str(number) for number in NUMBERS]


def _led_by(letters: str) -> list[str]:
    return [f"{letters}{one}" for one in TEXT]


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "padded": (NUMBERS, [f"{one:07d}" for one in NUMBERS], {"pad": 7}),
    "padded in the log": ([f"{one:07d}" for one in NUMBERS], NUMBERS, {"pad": 7}),
    "zeros of any number": (TEXT, [f"0{one}" for one in TEXT], {"leading_zeros": "drop"}),
    "a prefix": ([f"item_{one}" for one in TEXT], NUMBERS, {"prefix": "item_"}),
    "one prefix within another": (
        [f"x-p{one}" for one in TEXT],
        [f"p{one}" for one in TEXT],
        {"prefix": "x-"},
    ),
    "case": ([f"a{one}" for one in TEXT], [f"A{one}" for one in TEXT], {"case": "lower"}),
    "written as floats": ([f"{one}.0" for one in TEXT], NUMBERS, {"trailing_zero": "drop"}),
    "floats": (NUMBERS.astype(float), TEXT, {"trailing_zero": "drop"}),
    "numbers as text": (NUMBERS, TEXT, {"as_text": True}),
    "white space": ([f"{one} " for one in TEXT], TEXT, {"strip": True}),
    "byte order mark": ([f"\ufeff{one}" for one in TEXT], TEXT, {"strip": True}),
    "accents": (_led_by("e\u0301"), _led_by("\u00e9"), {"form": "NFC"}),
    "full width": (_led_by("\uff21"), _led_by("A"), {"form": "NFKC"}),
    "several at once": (
        NUMBERS,
        [f"ITEM_{one:08d}\u00a0" for one in NUMBERS],
        {"strip": True, "prefix": "ITEM_", "pad": 8},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_needed_is_found_and_no_more(name: str) -> None:
    first, second, settings = CASES[name]
    near = near_match(pa.array(first), pa.array(second))
    assert near is not None
    assert near.form == IdForm.model_validate(settings)
    assert (near.before, near.matched, near.of, near.merged) == (0, 500, 500, 0)


def test_it_counts_what_matches() -> None:
    near = near_match(pa.array(NUMBERS), pa.array([f"{one:07d}" for one in NUMBERS[:400]]))
    assert str(near) == "ids match after padding to 7 digits: 400 of 500"
    assert near is not None
    assert near.remedy("items").startswith("set schema.ids: {items: {pad: 7}} (ids match")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NUMBERS, NUMBERS),
        (NUMBERS, NUMBERS + 10**7),
        (NUMBERS, NUMBERS + 0.5),
        (TEXT, [f"x{one}y" for one in TEXT]),
        (NUMBERS[:0], TEXT),
        (["\u0660"], ["zero"]),
    ],
    ids=["the same", "others", "fractions", "other text", "none", "one"],
)
def test_nothing_is_made_up(first: Any, second: Any) -> None:
    assert near_match(pa.array(first), pa.array(second)) is None


def test_a_form_that_merges_the_ids_of_a_table_is_not_proposed() -> None:
    """Ids that tell lower from upper case: one writing for both would make one of two."""
    table = [one for number in TEXT for one in (f"a{number}", f"A{number}")]
    log = [f"a{number}" for number in TEXT[:400]] + [f"A{number} " for number in TEXT[:100]]
    near = near_match(pa.array(log), pa.array(table))
    assert near is None or near.form == IdForm(strip=True)


def test_spellings_of_one_id_are_counted_and_shown() -> None:
    found = spellings(pa.array(["AB1", "x", "ab1", "y", "Ab1", "z ", "z"]))
    assert found is not None
    assert (found.ids, found.form) == (3, IdForm(strip=True, case="lower"))
    assert found.examples == (("AB1", "ab1"), ("ab1", "Ab1"), ("z ", "z"))
    assert found.said("items").endswith('set schema.ids: {items: {strip: true, case: "lower"}}')
    assert found.said("items").startswith("3 ids of items differ from another")


def test_ids_of_one_spelling_have_no_others() -> None:
    assert spellings(pa.array(["a", "b", "ab", "1", "2"])) is None
    assert spellings(pa.array([1, 2])) is None
    assert spellings(pa.array([], pa.string())) is None
