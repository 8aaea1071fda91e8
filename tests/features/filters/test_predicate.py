"""Predicates beside a slow reading row by row, in Python and with SQL's three values."""

import operator
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.filters.predicate import passing
from recsys.features.filters.syntax import FilterError


class Table:
    """Columns of a table in memory."""

    place, remedy = "the shop", "; add it"

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @property
    def names(self) -> Sequence[str]:
        return list(self.table.column_names)

    def column(self, name: str) -> pa.Array:
        return self.table.column(name).combine_chunks()


SHOP = Table(
    pa.table(
        {
            "price": [1.0, 2.5, None, float("nan"), 60.0],
            "stock": [1, 0, 3, None, 2**60 + 1],
            "wide": pa.array([1, 2, 3, 4, 2**64 - 1], pa.uint64()),
            "in_stock": [True, False, None, True, True],
            "category": pa.array(["Tabak", "Tee", None, "Bad", "Tee"]).dictionary_encode(),
            "tags": [["a", "b"], [], None, ["b"], ["c"]],
            "sizes": [[1], [2], [], None, [1, 2]],
            "at": [datetime(2026, 1, day, 12) for day in range(1, 6)],
            "day": [date(2026, 1, day) for day in range(1, 6)],
            "nothing": pa.nulls(5),
            "odd": [{"x": 1}] * 5,
        }
    )
)


def holds(text: str) -> list[int]:
    """Return the items that pass, from 0."""
    return [int(row) for row in np.flatnonzero(passing(text, SHOP, 5))]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("price < 50", [0, 1]),
        ("not price < 50", [4]),  # a null, as NaN, is neither below nor not below
        ("price is null", [2, 3]),
        ("price is not null and price != 1", [1, 4]),
        ("in_stock", [0, 3, 4]),
        ("not in_stock", [1]),
        ("in_stock is not true", [1, 2]),
        ("in_stock is false or in_stock is null", [1, 2]),
        ("(price < 2) = in_stock", [0, 1]),
        ("category = 'Tee' or category = 'Bad'", [1, 3, 4]),
        ("category in ('Tee', 'Bad')", [1, 3, 4]),
        ("category not in ('Tee', 'Bad')", [0]),
        ("category > 'T'", [0, 1, 4]),
        ("category like 'T%'", [0, 1, 4]),
        ("category like '_ee'", [1, 4]),
        ("category ilike 't%' and not category like '%k'", [1, 4]),
        ("tags contains 'b'", [0, 3]),
        ("not tags contains 'b'", [1, 4]),
        ("sizes contains 2", [1, 4]),
        ("at >= '2026-01-03'", [2, 3, 4]),
        ("at > '2026-01-03T13:00:00+01:00'", [3, 4]),
        ("day between '2026-01-02' and '2026-01-03'", [1, 2]),
        ("at > day", [0, 1, 2, 3, 4]),
        ("stock = 1152921504606846977", [4]),
        ("stock = 1152921504606846976", []),
        ("wide = 18446744073709551615", [4]),
        ("stock = wide", [0, 2]),
        ("stock > 0.5", [0, 2, 4]),
        ("stock < 99999999999999999999", [0, 1, 2, 4]),
        ("price * 2 + 1 = 6", [1]),
        ("-price / 2 < -1", [1, 4]),
        ("1 / stock > 0", [0, 2, 4]),  # a division by zero is null
        ("price in (1, 60)", [0, 4]),
        ("nothing", []),
        ("nothing = 3 or not nothing = 3", []),
        ("nothing is null", [0, 1, 2, 3, 4]),
        ("price + nothing > 1 or true", [0, 1, 2, 3, 4]),
        ("1 = 1", [0, 1, 2, 3, 4]),
        ("false", []),
    ],
)
def test_cases_that_a_reader_can_check(text: str, items: list[int]) -> None:
    assert holds(text) == items


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("prise < 50", 1, r"the items of the shop have no column 'prise' \(did you mean 'price'\?"),
        ("zzz = 1", 1, "their columns are price, stock, .*; add it"),
        ('category = "Tee"', 12, "a text is written in single quotes: 'Tee'"),
        ("price < '50'", 9, r"'price' \(double\) cannot be compared with the text '50'"),
        (
            "stock = 1 and category < 3",
            26,
            r"'category' \(text\) cannot be compared with the num",
        ),
        ("in_stock = 1", 12, "with the number 1; write true or false, as in in_stock = true"),
        ("price in (1, 'a')", 14, "cannot be compared with the text 'a'"),
        ("price", 1, r"'price' \(double\) is no condition; compare it with .*, as in price = 1\.0"),
        ("price and in_stock", 1, "is no condition"),
        ("category", 1, r"\(text\) is no condition; .*, as in category = 'Tabak'"),
        ("price = null", 9, "write `is null` or `is not null`"),
        ("tags = 'a'", 1, "is a list; write tags contains 'a value'"),
        ("category contains 'a'", 1, "is no list; write like '%...%' for a part of a text"),
        ("tags contains 3", 15, "a value of column 'tags' .* cannot be compared with the number 3"),
        ("tags contains category", 15, "a list contains a value that is written out"),
        ("odd = 1", 1, r"column 'odd' \(struct<x: int64>\) cannot be compared"),
        (
            "at > 'yesterday'",
            6,
            "the text 'yesterday' is no time; write it as in '2026-11-30 17:00'",
        ),
        ("at > category", 6, "is no time; cast it in the source"),
        ("at > 3", 6, "cannot be compared with the number 3"),
        ("category + 1 = 2", 1, r"'category' \(text\) is no number, '\+' joins numbers"),
        ("price like 'a'", 1, "is no text, and `like` is about text"),
        ("category like price", 15, "a pattern is a text in single quotes"),
        ("price is true", 1, "is neither true nor false"),
    ],
)
def test_what_does_not_fit_the_items_is_pointed_at(text: str, position: int, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        holds(text)
    assert caught.value.position == position


def test_a_column_is_named_in_the_fields_of_the_error() -> None:
    with pytest.raises(FilterError) as caught:
        holds("in_stock and prise < 50")
    fields = caught.value.fields()
    assert (fields["error"], fields["column"], fields["position"]) == ("FilterError", "prise", 14)


SIGNS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Row = dict[str, Any]


def truth(tree: Any, row: Row) -> bool | None:
    """Return whether a tree holds for a row, None where that is unknown."""
    match tree:
        case ("not", part):
            one = truth(part, row)
            return None if one is None else not one
        case ("and", left, right):
            both = truth(left, row), truth(right, row)
            return False if False in both else (None if None in both else True)
        case ("or", left, right):
            both = truth(left, row), truth(right, row)
            return True if True in both else (None if None in both else False)
        case ("null", name):
            return row[name] is None
        case ("in", name, values):
            return None if row[name] is None else row[name] in values
        case (sign, name, value):
            return None if row[name] is None else SIGNS[sign](row[name], value)
    raise AssertionError(tree)


def written(tree: Any) -> str:
    """Return a tree as a predicate."""
    match tree:
        case ("not", part):
            return f"not ({written(part)})"
        case ("and" | "or" as word, left, right):
            return f"({written(left)}) {word} ({written(right)})"
        case ("null", name):
            return f"{name} is null"
        case ("in", name, values):
            return f"{name} in ({', '.join(map(shown, values))})"
        case (sign, name, value):
            return f"{name} {sign} {shown(value)}"
    raise AssertionError(tree)


def shown(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


NUMBERS, TEXTS = st.integers(-3, 3), st.sampled_from(["", "a", "b", "it's", " a", "%"])
FLOATS = st.sampled_from([-1.5, 0.0, 0.5, 1e9])
LEAVES = st.one_of(
    st.tuples(st.sampled_from(list(SIGNS)), st.just("n"), st.one_of(NUMBERS, FLOATS)),
    st.tuples(st.sampled_from(list(SIGNS)), st.just("x"), st.one_of(NUMBERS, FLOATS)),
    st.tuples(st.sampled_from(list(SIGNS)), st.just("t"), TEXTS),
    st.tuples(st.sampled_from(["=", "!="]), st.just("b"), st.booleans()),
    st.tuples(st.just("null"), st.sampled_from("nxtb")),
    st.tuples(st.just("in"), st.just("t"), st.lists(TEXTS, min_size=1, max_size=3)),
    st.tuples(st.just("in"), st.just("n"), st.lists(NUMBERS, min_size=1, max_size=3)),
)
TREES = st.recursive(
    LEAVES,
    lambda one: st.one_of(
        st.tuples(st.just("not"), one),
        st.tuples(st.sampled_from(["and", "or"]), one, one),
    ),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | NUMBERS,
            "x": st.none() | FLOATS,
            "t": st.none() | TEXTS,
            "b": st.none() | st.booleans(),
        }
    ),
    max_size=6,
)


@given(TREES, ROWS)
def test_rows_pass_as_when_each_is_read_by_itself(tree: Any, rows: list[Row]) -> None:
    kinds = {"n": pa.int32(), "x": pa.float64(), "t": pa.string(), "b": pa.bool_()}
    table = pa.table(
        {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    )
    wanted = [truth(tree, row) is True for row in rows]
    assert passing(written(tree), Table(table), len(rows)).tolist() == wanted


def test_times_of_other_zones_are_compared_as_instants() -> None:
    at = pa.array([datetime(2026, 1, 1, 23, tzinfo=UTC)], pa.timestamp("ns", "Europe/Berlin"))
    table = Table(pa.table({"at": at}))
    assert passing("at = '2026-01-02 00:00+01:00'", table, 1).tolist() == [True]
    assert passing("at < '2026-01-02'", table, 1).tolist() == [True]
