"""The language of predicates: what the text of a filter means, part by part, with its place.

    in_stock and price < 50 and not category = 'Tabak'
    price * 0.8 between 10 and 40 or tags contains 'sale' or brand is null

It is the `WHERE` of SQL over the columns of one table, without functions and queries: what the
grammar here does not name cannot be written, so a text from anywhere is safe to parse.
`pyparsing` reads it, which knows the place of each part. Words are written in any case; names of
columns as they are, in double quotes where they are no plain words.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyparsing as pp

from recsys.core.errors import ConfigError

LONGEST = 20_000
"""Characters of a text."""
_parsing = threading.Lock()
_SHOWN = 60
"""Characters of a text on either side of a place that is pointed at."""
_COMPARISONS = ("<=", ">=", "<>", "!=", "==", "=", "<", ">")
_SAME = {"==": "=", "<>": "!="}
_END = "'and', 'or' or the end of the text"
_A_LIST, _STATE = "a list in parentheses", "null, true or false"
_EXPECTED = {"end of text": _END, "')'": "')'", "'and'": "'and'", "'('": _A_LIST, _STATE: _STATE}
"""What may be expected, besides a value, in pyparsing's words and in ours."""


class FilterError(ConfigError):
    """A predicate that cannot be read, or does not fit the items.

    Attributes:
        reason: what is wrong.
        text: of the predicate.
        position: of what is wrong in it, from 1.
        column: the column it is about; "" where it is about none.
    """

    def __init__(self, reason: str, text: str, at: int, column: str = "") -> None:
        """Make the message; `at`: place in the text, from 0."""
        self.reason, self.text, self.position, self.column = reason, text, at + 1, column
        super().__init__(f"where: {reason}\n{pointed(text, at)}")

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        names = ("reason", "text", "position", "column")
        return super().fields() | {name: getattr(self, name) for name in names}


def pointed(text: str, at: int) -> str:
    """Return the part of a text around the place `at` with a mark under it."""
    start = max(0, at - _SHOWN)
    shown = " ".join(text[start : at + _SHOWN].splitlines()) if text else ""
    return f"  {shown}\n  {' ' * (at - start)}^"


@dataclass(frozen=True)
class Node:
    """A part of a predicate; `at` is its place in the text, from 0."""

    at: int = field(compare=False)


@dataclass(frozen=True)
class Column(Node):
    """The values of a column. is_quoted: whether its name is in double quotes."""

    name: str
    is_quoted: bool = False


@dataclass(frozen=True)
class Literal(Node):
    """A number, a text, true, false or null."""

    value: str | int | float | bool | None


@dataclass(frozen=True)
class Arithmetic(Node):
    """Two numbers joined by + - * or /."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Comparison(Node):
    """Two values joined by = != < <= > or >=."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Like(Node):
    """A text of some pattern: % for any characters, _ for one. folds: whether case is ignored."""

    value: Node
    pattern: Node
    folds: bool


@dataclass(frozen=True)
class Among(Node):
    """A value that is one of some."""

    value: Node
    choices: tuple[Node, ...]


@dataclass(frozen=True)
class Contains(Node):
    """A list that holds a value."""

    value: Node
    held: Node


@dataclass(frozen=True)
class Is(Node):
    """A value that is null, true or false."""

    value: Node
    what: bool | None


@dataclass(frozen=True)
class Not(Node):
    """What does not hold."""

    part: Node


@dataclass(frozen=True)
class Several(Node):
    """Conditions that all hold, or one of which does (is_or)."""

    parts: tuple[Node, ...]
    is_or: bool = False


def parse(text: str) -> Node:
    """Return the condition that `text` says.

    Raises:
        FilterError: it says none; the place is pointed at.
    """
    if len(text) > LONGEST:
        raise FilterError(f"longer than {LONGEST:,} characters", text, LONGEST)
    if not text.strip():
        raise FilterError("empty; write a condition, as in price < 50", text, 0)
    try:
        with _parsing:
            (found,) = _grammar().parse_string(text, parse_all=True)
    except pp.ParseBaseException as error:
        raise FilterError(_what_came(text, error), text, min(error.loc, len(text))) from None
    except RecursionError:
        raise FilterError("too many parentheses within each other", text, 0) from None
    condition: Node = found
    return condition


def _what_came(text: str, error: pp.ParseBaseException) -> str:
    """Say what was expected and what is there, and the likeliest reason."""
    rest = text[error.loc :].lstrip()
    if re.match(r"'(?:[^']|'')*$", rest):
        return "a text that does not end; a ' within a text is written ''"
    if re.match(r'"[^"]*$', rest):
        return "a name that does not end; it is written in double quotes"
    expected = error.msg.removeprefix("Expected ")
    expected = _EXPECTED.get(expected, "a value")
    word = re.match(r"\w+|\S", rest)
    came = f"not {word[0][:20]!r}" if word else "and the text ends"
    why = "; functions and queries are unknown" if rest.startswith("(") else ""
    return f"expected {expected}, {came}{why}"


@functools.cache
def _grammar() -> pp.ParserElement:
    """Return the parser of a whole text, made once."""
    condition = pp.Forward()
    value = _value(condition)
    is_word, null = pp.CaselessKeyword("is"), pp.CaselessKeyword("null")
    no = pp.Optional(pp.CaselessKeyword("not"))
    comma, opening, closing = map(pp.Suppress, ",()")
    a_list = opening - pp.DelimitedList(value, comma) - closing.set_name("')'")
    one_of = no + pp.CaselessKeyword("in") - pp.Group(a_list)
    between = no + pp.CaselessKeyword("between") - value - _word("and") - value
    like = no + (pp.CaselessKeyword("like") | pp.CaselessKeyword("ilike")) - value
    holds = no + pp.CaselessKeyword("contains") - value
    state = null | pp.CaselessKeyword("true") | pp.CaselessKeyword("false")
    is_state = is_word - no - state.set_name(_STATE)
    comparison = pp.one_of(_COMPARISONS).set_name("a comparison") - value
    tail = is_state | one_of | between | like | holds | comparison
    one = pp.Located(value + pp.Optional(pp.Group(tail))).set_parse_action(_predicate)
    negated = pp.Forward()
    negated <<= (
        pp.Located(pp.CaselessKeyword("not").suppress() - negated).set_parse_action(_located(Not))
        | one
    )
    every = _chain(negated, "and", is_or=False)
    condition <<= _chain(every, "or", is_or=True)
    return condition


def _word(word: str) -> pp.ParserElement:
    return pp.CaselessKeyword(word).set_name(f"'{word}'").suppress()


def _value(condition: pp.ParserElement) -> pp.ParserElement:
    """Return the parser of numbers, texts, columns and what is worked out from them."""
    words = "and|or|not|in|is|null|like|ilike|between|contains|true|false"
    name = pp.Regex(rf"(?!(?i:{words})\b)[^\W\d]\w*").set_parse_action(
        lambda _, at, found: Column(at, found[0])
    )
    quoted = pp.QuotedString('"', esc_quote='""').set_parse_action(
        lambda _, at, found: Column(at, found[0], is_quoted=True)
    )
    # White space at the ends of a text is part of it.
    text = pp.Regex(r"'(?:[^']|'')*'").set_parse_action(
        lambda _, at, found: Literal(at, found[0][1:-1].replace("''", "'"))
    )
    number = pp.Regex(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?(?![\w.])").set_parse_action(
        lambda _, at, found: Literal(at, _number(found[0]))
    )
    constants = {"true": True, "false": False, "null": None}
    constant = pp.MatchFirst([pp.CaselessKeyword(word) for word in constants]).set_parse_action(
        lambda _, at, found: Literal(at, constants[found[0]])
    )
    inner = pp.Suppress("(") + condition - pp.Suppress(")").set_name("')'")
    part = pp.Forward()
    negative = pp.Located(pp.Suppress("-") + part).set_parse_action(
        lambda found: _negative(found[0], found[1][0])
    )
    part <<= number | text | constant | quoted | name | inner | negative
    return _signs(_signs(part, "*/"), "+-")


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def _negative(at: int, value: Node) -> Node:
    if isinstance(value, Literal) and type(value.value) in (int, float):
        return Literal(at, -value.value)  # type: ignore[operator]
    return Arithmetic(at, "-", Literal(at, 0), value)


def _signs(part: pp.ParserElement, signs: str) -> pp.ParserElement:
    """Return the parser of parts joined by some signs, from left to right."""
    tail = pp.ZeroOrMore(pp.one_of(list(signs)) - part)
    return (part + tail).set_parse_action(lambda found: _folded(list(found)))


def _folded(found: list[Any]) -> Node:
    value: Node = found[0]
    for sign, other in zip(found[1::2], found[2::2], strict=True):
        value = Arithmetic(value.at, sign, value, other)
    return value


def _chain(part: pp.ParserElement, word: str, *, is_or: bool) -> pp.ParserElement:
    """Return the parser of conditions joined by `word`."""
    tail = pp.ZeroOrMore(_word(word) - part)

    def joined(found: pp.ParseResults) -> Node:
        parts: tuple[Node, ...] = tuple(found)
        return Several(parts[0].at, parts, is_or) if len(parts) > 1 else parts[0]

    return (part + tail).set_parse_action(joined)


def _located(make: Callable[..., Node]) -> Callable[[pp.ParseResults], Node]:
    return lambda found: make(found[0], *found[1])


def _predicate(found: pp.ParseResults) -> Node:
    """Return what a value and, where there is one, its comparison say."""
    (value, *tails) = found[1]
    if not tails:
        result: Node = value
        return result
    (first, *rest) = tails[0]
    if first in _COMPARISONS:
        return Comparison(value.at, _SAME.get(first, first), value, rest[0])
    if first == "is":
        is_not, what = rest[0] == "not", rest[-1]
        state = Is(value.at, value, {"null": None, "true": True, "false": False}[what])
        return Not(value.at, state) if is_not else state
    is_not = first == "not"
    word, *arguments = rest if is_not else tails[0]
    made = _PREDICATES[word](value, *arguments)
    return Not(value.at, made) if is_not else made


_PREDICATES: dict[str, Callable[..., Node]] = {
    "in": lambda value, choices: Among(value.at, value, tuple(choices)),
    "between": lambda value, low, high: Several(
        value.at,
        (Comparison(value.at, ">=", value, low), Comparison(value.at, "<=", value, high)),
    ),
    "like": lambda value, pattern: Like(value.at, value, pattern, folds=False),
    "ilike": lambda value, pattern: Like(value.at, value, pattern, folds=True),
    "contains": lambda value, held: Contains(value.at, value, held),
}
