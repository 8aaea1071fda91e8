"""Predicates over columns of items: types checked, answered in SQL's three values.

A comparison with a null is unknown, and so is what is made of unknown parts alone: `not` of an
unknown is unknown, too. An item passes where the whole is true. Numbers of columns are compared
exactly where both sides are whole; arithmetic is in double precision, and a division by zero is
null.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import reduce
from typing import Any, NoReturn, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.strict import nearest
from recsys.features.filters.syntax import (
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
from recsys.features.tables.ledger import is_list, is_text

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "+": pc.add,
    "-": pc.subtract,
    "*": pc.multiply,
    "/": pc.divide,
}
_TIME = pa.timestamp("us", tz="UTC")
_LARGEST = 2**63


class Sort(Enum):
    """What values are compared as."""

    BOOLEAN = auto()
    LIST = auto()
    NULL = auto()
    NUMBER = auto()
    TEXT = auto()
    TIME = auto()


_TRUTH = "; write true or false, as in in_stock = true, or the column alone"


class Columns(Protocol):
    """The columns of N items."""

    @property
    def place(self) -> str:
        """Where they are, for messages."""

    @property
    def remedy(self) -> str:
        """What else can be done where a column is missing, to end a sentence."""

    @property
    def names(self) -> Sequence[str]:
        """All there are."""

    def column(self, name: str) -> pa.Array:
        """Return one, (N,)."""


@dataclass(frozen=True)
class _Value:
    """What a part of a predicate is: of which kind, the values, and how messages call it."""

    kind: Sort
    values: Any
    what: str
    at: int
    is_literal: bool = False


def passing(text: str, columns: Columns, size: int) -> NDArray[np.bool_]:
    """Return which items the predicate is true of, (N,).

    Args:
        text: the predicate.
        columns: of the items.
        size: N.

    Raises:
        FilterError: it cannot be read, names no column, or compares what cannot be compared; the
            place in the text is pointed at.
        DataError: a column cannot be read.
    """
    node = parse(text)
    try:
        found = _Reading(text, columns).condition(node)
    except RecursionError:
        raise FilterError("too many parts within each other", text, 0) from None
    if isinstance(found, pa.Scalar):
        return np.full(size, found.as_py() is True)
    holds: NDArray[np.bool_] = np.asarray(found.fill_null(False))
    return holds


def no_column(name: str, columns: Columns) -> str:
    """Say that the items have no such column, and which may be meant."""
    names = list(columns.names)
    return (
        f"the items of {columns.place} have no column '{name}'{nearest(name, names)}; "
        f"their columns are {', '.join(names)}"
    )


class _Reading:
    """Reads one predicate over some columns."""

    def __init__(self, text: str, columns: Columns) -> None:
        self._text, self._columns = text, columns

    def condition(self, node: Node) -> Any:
        """Return whether a part holds: booleans with nulls, (N,) or one for all."""
        match node:
            case Several(parts=parts, is_or=is_or):
                join = pc.or_kleene if is_or else pc.and_kleene
                return reduce(join, map(self.condition, parts))
            case Not(part=part):
                return pc.invert(self.condition(part))
            case Is(value=part, what=what):
                return self._is(part, what)
            case Like(value=part, pattern=pattern, folds=folds):
                return self._like(part, pattern, folds)
            case Among(value=part, choices=choices):
                return self._among(part, choices)
            case Contains(value=part, held=held):
                return self._contains(part, held)
            case Comparison(sign=sign, left=left, right=right):
                return self._compared(sign, self._value(left), self._value(right))
        value = self._value(node)
        if value.kind == Sort.NULL:
            return pa.scalar(None, pa.bool_())
        if value.kind != Sort.BOOLEAN:
            self._refuse(f"{value.what} is no condition{_comparison_hint(node, value)}", value)
        return value.values

    def _value(self, node: Node) -> _Value:
        match node:
            case Column():
                return self._column(node)
            case Literal(value=value, at=at):
                return _literal(value, at)
            case Arithmetic(sign=sign, left=left, right=right):
                return self._computed(sign, self._value(left), self._value(right))
        return _Value(Sort.BOOLEAN, self.condition(node), "a condition", node.at)

    def _column(self, node: Column) -> _Value:
        if node.name not in self._columns.names:
            hint = self._columns.remedy
            if node.is_quoted:
                hint = f"; a text is written in single quotes: '{node.name}'"
            raise FilterError(
                no_column(node.name, self._columns) + hint, self._text, node.at, node.name
            )
        values = self._columns.column(node.name)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        kind = _kind(values.type)
        what = f"column '{node.name}' ({'text' if kind is Sort.TEXT else values.type})"
        if kind is None:
            raise FilterError(f"{what} cannot be compared", self._text, node.at, node.name)
        return _Value(kind, _plain(values, kind), what, node.at)

    def _compared(self, sign: str, left: _Value, right: _Value) -> Any:
        for one in (left, right):
            if one.is_literal and one.kind == Sort.NULL:
                self._refuse("nothing is equal to null; write `is null` or `is not null`", one)
            if one.kind == Sort.LIST:
                self._refuse(f"{one.what} is a list; write {_contains_hint(one)}", one)
        left, right = self._alike(left, right)
        if Sort.NULL in (left.kind, right.kind):
            return _unknown(left.values, right.values)
        return _SIGNS[sign](*_same_type(left.values, right.values))

    def _alike(self, left: _Value, right: _Value) -> tuple[_Value, _Value]:
        """Return two values of one kind, or one that is null; a text beside a time is one."""
        kinds = {left.kind, right.kind}
        if kinds == {Sort.TIME, Sort.TEXT}:
            return self._as_time(left), self._as_time(right)
        if len(kinds - {Sort.NULL}) > 1:
            hint = _TRUTH if kinds == {Sort.BOOLEAN, Sort.NUMBER} else ""
            self._refuse(f"{left.what} cannot be compared with {right.what}{hint}", right)
        return left, right

    def _as_time(self, value: _Value) -> _Value:
        if value.kind == Sort.TIME:
            return value
        if not isinstance(value.values, pa.Scalar):
            self._refuse(f"{value.what} is no time; cast it in the source", value)
        try:
            time = datetime.fromisoformat(value.values.as_py())
        except ValueError:
            self._refuse(f"{value.what} is no time; write it as in '2026-11-30 17:00'", value)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return _Value(Sort.TIME, pa.scalar(time.astimezone(UTC), _TIME), value.what, value.at)

    def _computed(self, sign: str, left: _Value, right: _Value) -> _Value:
        for one in (left, right):
            if one.kind not in (Sort.NUMBER, Sort.NULL):
                self._refuse(f"{one.what} is no number, {sign!r} joins numbers", one)
        what = f"{left.what} {sign} {right.what}"
        if Sort.NULL in (left.kind, right.kind):
            unknown = _unknown(left.values, right.values)
            return _Value(Sort.NULL, unknown, what, left.at)
        numbers = (_as_double(one.values) for one in (left, right))
        return _Value(Sort.NUMBER, _finite(_SIGNS[sign](*numbers)), what, left.at)

    def _is(self, node: Node, what: bool | None) -> Any:
        value = self._value(node)
        if what is None:
            return pc.is_null(value.values)
        if value.kind not in (Sort.BOOLEAN, Sort.NULL):
            self._refuse(f"{value.what} is neither true nor false", value)
        holds = pc.equal(value.values.cast(pa.bool_()), what)
        return pc.fill_null(holds, False)

    def _like(self, node: Node, pattern: Node, folds: bool) -> Any:
        value, like = self._value(node), self._value(pattern)
        if not isinstance(like.values, pa.Scalar) or like.kind != Sort.TEXT:
            self._refuse("a pattern is a text in single quotes, as in '%tea%'", like)
        if value.kind == Sort.NULL:
            return _unknown(value.values, like.values)
        if value.kind != Sort.TEXT:
            self._refuse(f"{value.what} is no text, and `like` is about text", value)
        return pc.match_like(value.values, like.values.as_py(), ignore_case=folds)

    def _among(self, node: Node, choices: Sequence[Node]) -> Any:
        value = self._value(node)
        equal = [self._compared("=", value, self._value(choice)) for choice in choices]
        return reduce(pc.or_kleene, equal)

    def _contains(self, node: Node, held: Node) -> Any:
        lists, value = self._value(node), self._value(held)
        if lists.kind == Sort.NULL:
            return _unknown(lists.values, value.values)
        if lists.kind != Sort.LIST:
            remedy = "; write like '%...%' for a part of a text" if lists.kind == Sort.TEXT else ""
            self._refuse(f"{lists.what} is no list{remedy}", lists)
        if not isinstance(value.values, pa.Scalar):
            self._refuse("a list contains a value that is written out, as in 'sale'", value)
        inner = lists.values.flatten()
        kind = _kind(inner.type) or Sort.NULL
        own = _Value(kind, _plain(inner, kind), f"a value of {lists.what}", lists.at)
        hits = self._compared("=", own, value)
        owners = np.asarray(pc.list_parent_indices(lists.values))
        holds = np.zeros(len(lists.values), bool)
        holds[owners[np.asarray(hits.fill_null(False))]] = True
        return pc.if_else(lists.values.is_valid(), pa.array(holds), pa.scalar(None, pa.bool_()))

    def _refuse(self, reason: str, value: _Value) -> NoReturn:
        raise FilterError(reason, self._text, value.at)


def _literal(value: str | int | float | bool | None, at: int) -> _Value:
    if value is None:
        return _Value(Sort.NULL, pa.scalar(None, pa.bool_()), "null", at, True)
    if isinstance(value, bool):
        return _Value(Sort.BOOLEAN, pa.scalar(value), str(value).lower(), at, True)
    if isinstance(value, str):
        text = pa.scalar(value, pa.large_string())
        return _Value(Sort.TEXT, text, f"the text '{value}'", at, True)
    fits = isinstance(value, float) or abs(value) < _LARGEST
    number = pa.scalar(value if fits else float(value))
    return _Value(Sort.NUMBER, number, f"the number {value}", at, True)


def _kind(kind: pa.DataType) -> Sort | None:
    """Return what values of an Arrow type are compared as; None: they are not."""
    types = pa.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    tests = {
        Sort.NULL: types.is_null(kind),
        Sort.BOOLEAN: types.is_boolean(kind),
        Sort.NUMBER: types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind),
        Sort.TEXT: is_text(kind),
        Sort.TIME: types.is_timestamp(kind) or types.is_date(kind),
        Sort.LIST: is_list(kind),
    }
    return next((sort for sort, holds in tests.items() if holds), None)


def _plain(values: pa.Array, kind: Sort) -> pa.Array:
    """Return the values of a column in one type a kind; NaN is null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if kind == Sort.TEXT:
        return values.cast(pa.large_string())
    if kind == Sort.TIME:
        return values.cast(_TIME, safe=False)
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        return _finite(values.cast(pa.float64()), keep_infinite=True)
    return values


def _finite(values: Any, *, keep_infinite: bool = False) -> Any:
    """Return numbers with null in place of NaN, and of infinities unless they are kept."""
    lost = pc.is_nan(values) if keep_infinite else pc.invert(pc.is_finite(values))
    return pc.if_else(lost, pa.scalar(None, pa.float64()), values)


def _as_double(values: Any) -> Any:
    return values.cast(pa.float64(), safe=False)


def _same_type(left: Any, right: Any) -> tuple[Any, Any]:
    """Return numbers of one type; whole ones stay whole where one type holds both."""
    if left.type == right.type or not all(_kind(one.type) == Sort.NUMBER for one in (left, right)):
        return left, right
    if all(pa.types.is_integer(one.type) for one in (left, right)):
        for kind in (pa.int64(), pa.uint64()):
            try:
                return left.cast(kind), right.cast(kind)
            except pa.ArrowInvalid:
                continue
    return _as_double(left), _as_double(right)


def _unknown(*values: Any) -> Any:
    """Return nulls in the shape of the longest of some values."""
    size = max(-1 if isinstance(one, pa.Scalar) else len(one) for one in values)
    return pa.scalar(None, pa.bool_()) if size < 0 else pa.nulls(size, pa.bool_())


def _comparison_hint(node: Node, value: _Value) -> str:
    """Return how a column may be compared, with the first of its values."""
    remedy = "; compare it with something"
    if not isinstance(node, Column) or value.kind not in (Sort.NUMBER, Sort.TEXT):
        return remedy
    known = value.values.drop_null()[:1].to_pylist()
    shown = [
        f"'{one}'" if isinstance(one, str) else f"{one}" for one in known if len(f"{one}") < 30
    ]
    return f"{remedy}, as in {node.name} = {shown[0]}" if shown else remedy


def _contains_hint(value: _Value) -> str:
    name = value.what.split("'")[1] if "'" in value.what else "column"
    return f"{name} contains 'a value'"
