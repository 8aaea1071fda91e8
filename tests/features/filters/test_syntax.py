"""What predicates mean, and where they are wrong."""

import pytest

from recsys.features.filters.syntax import (
    LONGEST,
    Among,
    Arithmetic,
    Column,
    Comparison,
    Contains,
    FilterError,
    Is,
    Like,
    Literal,
    Node,
    Not,
    Several,
    parse,
)

PRICE, BRAND = Column(0, "price"), Column(0, "brand")


def number(value: float) -> Literal:
    return Literal(0, value)


def text(value: str) -> Literal:
    return Literal(0, value)


def below(value: float) -> Comparison:
    return Comparison(0, "<", PRICE, number(value))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("price < 50", below(50)),
        ("PRICE<5e1", Comparison(0, "<", Column(0, "PRICE"), number(50.0))),
        ("price == -2", Comparison(0, "=", PRICE, number(-2))),
        ("price <> .5", Comparison(0, "!=", PRICE, number(0.5))),
        ("brand = 'it''s'", Comparison(0, "=", BRAND, text("it's"))),
        ("brand = ' or x = 1'", Comparison(0, "=", BRAND, text(" or x = 1"))),
        ('"a ""b""" is null', Is(0, Column(0, 'a "b"', is_quoted=True), None)),
        ("not brand is not null", Not(0, Not(0, Is(0, BRAND, None)))),
        ("Größe IN (1, 2)", Among(0, Column(0, "Größe"), (number(1), number(2)))),
        ("brand not in ('a')", Not(0, Among(0, BRAND, (text("a"),)))),
        ("brand like 'a%'", Like(0, BRAND, text("a%"), folds=False)),
        ("brand NOT ILIKE 'a%'", Not(0, Like(0, BRAND, text("a%"), folds=True))),
        ("tags contains 'sale'", Contains(0, Column(0, "tags"), text("sale"))),
        ("nothing", Column(0, "nothing")),
        ("order = 1 and inside", Several(0, (Comparison(0, "=", Column(0, "order"), number(1)),
                                             Column(0, "inside")))),
    ],
)  # fmt: skip
def test_each_form_is_read(written: str, meant: Node) -> None:
    assert parse(written) == meant


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    a, b, c = (Column(0, name) for name in "abc")
    assert parse("a or b and not c") == Several(0, (a, Several(0, (b, Not(0, c)))), is_or=True)
    assert parse("(a or b) and c") == Several(0, (Several(0, (a, b), is_or=True), c))
    assert parse("not price < 3") == Not(0, below(3))
    between = Several(0, (Comparison(0, ">=", PRICE, number(1)), Comparison(0, "<=", PRICE, a)))
    assert parse("price between 1 and a and b") == Several(0, (between, b))


def test_signs_are_read_from_left_to_right_and_products_first() -> None:
    one, two = number(1), number(2)
    left = Arithmetic(0, "-", Arithmetic(0, "-", PRICE, one), Arithmetic(0, "*", two, BRAND))
    assert parse("price - 1 - 2 * brand < 50") == Comparison(0, "<", left, number(50))
    inner = Arithmetic(0, "*", Arithmetic(0, "+", PRICE, one), two)
    assert parse("(price + 1) * 2 < 50") == Comparison(0, "<", inner, number(50))
    negative = Arithmetic(0, "-", number(0), PRICE)
    assert parse("-price < 50") == Comparison(0, "<", negative, number(50))


@pytest.mark.parametrize(
    ("written", "position", "message"),
    [
        ("", 1, "empty; write a condition"),
        ("price <", 8, "expected a value, and the text ends"),
        ("price < and 3", 9, "expected a value, not 'and'"),
        ("price < 50 foo", 12, "expected 'and', 'or' or the end of the text, not 'foo'"),
        ("a < b < c", 7, "expected 'and', 'or' or the end of the text, not '<'"),
        ("read_csv('x') = 1", 9, "functions and queries are unknown"),
        ("a in (select b from c)", 14, r"expected '\)', not 'b'"),
        ("a = 1; drop table b", 6, "not ';'"),
        ("a in 'x'", 6, "expected a list in parentheses"),
        ("a in ()", 7, r"expected a value, not '\)'"),
        ("a = 'x", 5, "a text that does not end; a ' within a text is written ''"),
        ('a = "x', 5, "a name that does not end; it is written in double quotes"),
        ("(a = 1", 7, r"expected '\)', and the text ends"),
        ("a is 3", 6, "expected null, true or false, not '3'"),
        ("a between 1 or 2", 13, "expected 'and', not 'or'"),
        ("5x = 3", 1, "expected a value"),
        ("a && b", 3, "not '&'"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(written: str, position: int, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        parse(written)
    assert caught.value.position == position
    assert caught.value.fields()["position"] == position
    *_, shown, mark = str(caught.value).split("\n")
    assert shown == f"  {written}"
    assert mark.index("^") == position + 1


def test_a_text_without_end_and_one_without_measure_are_refused() -> None:
    with pytest.raises(FilterError, match="longer than 20,000 characters"):
        parse("a" * (LONGEST + 1))
    for deep in ("(" * 3000 + "a" + ")" * 3000, "not " * 3000 + "a"):
        with pytest.raises(FilterError, match="too many parentheses within each other"):
            parse(deep)


def test_of_a_long_text_the_part_around_the_place_is_shown() -> None:
    long = " and\n".join(f"price < {n}" for n in range(100)) + " nor x"
    with pytest.raises(FilterError) as caught:
        parse(long)
    _, shown, mark = str(caught.value).split("\n")
    assert len(shown) < 130
    assert shown[mark.index("^") :] == "nor x"
