"""A feature kind for a column, from what its values look like."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import speaks_of, time_unit

_SEPARATORS = ("|", ";", ",")
_TITLE_WORDS = {"title", "name", "headline", "label", "caption"}
_TIME_WORDS = {
    "time", "timestamp", "ts", "date", "datetime", "created", "released", "since", "joined",
    "registered", "signup", "updated", "published",
}  # fmt: skip
_CODE_WORDS = {
    "id", "code", "zip", "key", "category", "cat", "type", "class", "genre", "brand", "group",
    "segment", "department", "city", "country", "region", "store", "shop", "artist", "author",
}  # fmt: skip
_NUMBER_WORDS = {"price", "year", "age", "cost", "length", "size", "duration", "weight", "count"}
_FEW, _FEWER = 64, 16
_RARE = 10
"""Rows below which `min_count` is worth a word."""


@dataclass(frozen=True)
class Suggestion:
    """A feature as the configuration writes it; without `kind` the column is left out.

    options: keys beside name, table and kind; comment: why, or why not; values: distinct values
    it looks up; unsure: a sentence for the person who reads the configuration.
    """

    kind: str
    options: dict[str, object]
    comment: str = ""
    values: int = 0
    unsure: str = ""


def suggest(column: ColumnProfile, latest: float) -> Suggestion:
    """Return what the column may be to a model."""
    if column.type in ("null", "other"):
        return Suggestion("", {}, f"{column.values.type}: nothing a feature can read")
    if len(column.known) == 0 or (column.type != "list" and column.distinct <= 1):
        return Suggestion("", {}, "one value throughout: nothing to learn from")
    if column.type == "list":
        return _list(column)
    if column.type == "time" or column.is_date_text:
        return Suggestion("timestamp", {"unit": "datetime"}, "", 31)
    if column.type == "boolean":
        return Suggestion("categorical", {}, "true or false", 2)
    return _text(column) if column.type == "text" else _number(column, latest)


def suggest_for_clicks(column: ColumnProfile, latest: float) -> Suggestion:
    """Return what the column of a labelled log may be to a ranker.

    Columns of such logs seldom have names that speak: whole numbers that start near 0 and have a
    long tail are counts; others whose values come again are codes.
    """
    one = suggest(column, latest)
    is_code = speaks_of(column.name, _CODE_WORDS)
    if one.kind in ("numeric", "categorical") and column.is_whole and not is_code:
        if _is_count(column):
            one = Suggestion("numeric", {"transform": "log1p"}, "counts with a long tail")
        elif one.kind == "numeric" and _comes_often(column):
            one = Suggestion("categorical", {}, "", column.distinct)
    if one.kind not in ("categorical", "multi_categorical"):
        return one
    if one.kind == "categorical" and not _comes_again(column):
        return Suggestion("", {}, "hardly a value of its last rows stands in earlier ones")
    comment = f"{one.values:,} values"
    if one.kind == "categorical":
        counts = np.asarray(pc.value_counts(column.known).field("counts"))
        rare = int((counts < _RARE).sum())
        if rare > max(_FEW, len(counts) / 2):
            comment += f"; min_count: {_RARE} would make the {rare:,} rare ones one"
    return Suggestion(one.kind, {"multiplicity": "auto", **one.options}, comment, one.values)


def title_of(columns: dict[str, ColumnProfile]) -> str | None:
    """Return the column that people would read as the title."""
    texts = [column for column in columns.values() if column.type == "text" and len(column.known)]
    named = [column for column in texts if speaks_of(column.name, _TITLE_WORDS)]
    wordy = [column for column in named if column.mean_words > 1.2]
    for choice in (wordy, named):
        if choice:
            return max(choice, key=lambda column: column.distinct).name
    return None


def _list(column: ColumnProfile) -> Suggestion:
    inner = column.values.type.value_type
    lengths = np.asarray(pc.list_value_length(column.known))
    width = int(lengths[0])
    if pa.types.is_floating(inner):
        if (lengths == width).all() and width > 0:
            return Suggestion("vector", {"dim": width})
        return Suggestion(
            "",
            {},
            "lists of numbers of unlike length",
            unsure=f"'{column.name}' holds lists of floats of {lengths.min()} to {lengths.max()} "
            "numbers; a vector feature needs one length, so it was left out",
        )
    if pa.types.is_dictionary(inner):
        inner = inner.value_type
    if pa.types.is_integer(inner) or pa.types.is_string(inner) or pa.types.is_large_string(inner):
        return Suggestion("multi_categorical", {}, "", column.distinct)
    return Suggestion("", {}, f"lists of {inner}: nothing a feature can read")


def _text(column: ColumnProfile) -> Suggestion:
    separated = _separator(column)
    if separated is not None:
        separator, parts = separated
        return Suggestion("multi_categorical", {"separator": separator}, "", parts)
    share = column.distinct / len(column.known)
    if column.mean_words >= 2.5 or (column.mean_words >= 1.5 and share > 0.5):
        lowered = pc.utf8_lower(column.words)
        tokens = pc.unique(pc.list_flatten(pc.utf8_split_whitespace(lowered)))
        return Suggestion("text", {}, "", len(tokens))
    if column.is_unique:
        return Suggestion("", {}, "another value in every row: says no more than the id")
    return Suggestion("categorical", {}, f"{column.distinct:,} values", column.distinct)


def _number(column: ColumnProfile, latest: float) -> Suggestion:
    if not len(column.numbers):
        return Suggestion("", {}, "null throughout")
    unit = time_unit(column, latest)
    # Few numbers but times lie in the narrow window of milliseconds since 1990.
    if unit is not None and (unit != "s" or speaks_of(column.name, _TIME_WORDS)):
        return Suggestion("timestamp", {"unit": unit}, "", 31)
    if column.is_whole:
        is_number = speaks_of(column.name, _NUMBER_WORDS) and column.distinct > 20
        is_id = speaks_of(column.name, _CODE_WORDS)
        if column.is_unique and column.type == "integer" and is_id:
            return Suggestion("", {}, "another value in every row: says no more than the id")
        if is_id or (column.distinct <= _FEW and not is_number):
            return Suggestion("categorical", {}, f"{column.distinct:,} values", column.distinct)
    finite = column.numbers[np.isfinite(column.numbers)]
    median = float(np.median(finite)) if len(finite) else 0.0
    if len(finite) and finite.min() >= 0 and finite.max() > 20 * max(median, 1e-9):
        return Suggestion("numeric", {"transform": "log1p"}, "a long tail")
    return Suggestion("numeric", {})


def _is_count(column: ColumnProfile) -> bool:
    """Whether whole numbers lie densely near 0 and thin out far above."""
    numbers = column.numbers[np.isfinite(column.numbers)]
    distinct = np.unique(numbers)
    if len(distinct) <= _FEWER:
        return False
    median = float(np.median(numbers))
    starts_low = -10 <= distinct[0] <= 2 and distinct[:10][-1] <= 30
    return bool(starts_low and distinct[-1] > 20 * max(median, 1))


def _comes_often(column: ColumnProfile) -> bool:
    """Whether whole numbers come again and again, under a name that does not speak of amounts."""
    comes_again = len(column.known) >= 4 * column.distinct
    return comes_again and not speaks_of(column.name, _NUMBER_WORDS)


def _comes_again(column: ColumnProfile) -> bool:
    """Whether more than a tenth of the last rows have a value that stands in earlier ones."""
    if column.type == "boolean":
        return True
    values = column.known
    cut = len(values) - max(len(values) // 10, 1)
    again = pc.is_in(values[cut:], values[:cut])
    return bool(pc.mean(again.cast(pa.float64())).as_py() > 0.1)


def _separator(column: ColumnProfile) -> tuple[str, int] | None:
    """Return the sign that parts the text into values that come again, and how many there are."""
    for sign in _SEPARATORS:
        has = pc.mean(pc.match_substring(column.known, sign).cast(pa.float64())).as_py()
        if has < 0.1:
            continue
        parts = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(column.known, sign)))
        distinct = pc.unique(parts)
        spaces = pc.mean(pc.count_substring(distinct, " ")).as_py()
        if len(parts) >= 3 * len(distinct) and spaces < 3 and "" not in distinct.to_pylist():
            return sign, len(distinct)
    return None
