"""Columns as their features need them, one function a kind; each names the row that does not fit.

What comes out keeps its Arrow type where a value may be looked up (text, whole numbers,
booleans), is float64 for numbers, list<float32> for vectors, and whole numbers or UTC
timestamps for points in time. Null stays null; NaN counts as null.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import DataError
from recsys.features.schema import Feature
from recsys.features.tables.ledger import Cells, is_list, is_text, mask_of
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import (
    NULL_TIME,
    NULL_WORDS,
    UNITS,
    TimeUnit,
    guess_unit,
    latest_seconds,
    raw_times,
)

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
_WHOLE_FLOAT = r"^-?[0-9]{1,15}(\.0*)?$"
_PRIORITY = ("categorical", "multi_categorical", "text", "vector", "timestamp", "numeric")


def convert(cells: Cells, features: Sequence[Feature], policies: Policies) -> pa.Array:
    """Return a batch of a column, (N,), fit for every feature that reads it.

    Raises:
        DataError: the column's type goes with none of the feature's kind; single bad values
            go to the ledger.
    """
    if pa.types.is_null(cells.values.type):
        return cells.values
    results = []
    for feature in sorted(features, key=lambda feature: _PRIORITY.index(feature.kind)):
        if feature.kind == "categorical":
            results.append(_category(cells, feature))
        elif feature.kind == "multi_categorical":
            results.append(_categories(cells, feature, feature.separator))
        elif feature.kind == "text":
            results.append(_text(cells, feature))
        elif feature.kind == "vector":
            results.append(_vector(cells, feature.dim, policies))
        elif feature.kind == "timestamp":
            results.append(_timestamp(cells, feature.unit))
        else:
            results.append(number(cells, policies))
    # Several features of one column: the first loses no value that another needs.
    return results[0]


def number(cells: Cells, policies: Policies) -> pa.Array:
    """Return a batch of numbers as float64; NaN becomes null, infinities follow the policy."""
    values, kind = cells.values, cells.values.type
    if pa.types.is_null(kind):
        return values.cast(pa.float64())
    if is_list(kind):
        cells.refuse("a list where one number is expected", "declare a vector feature")
    if is_text(kind):
        values = _parse_numbers(cells)
    elif pa.types.is_temporal(kind):
        cells.refuse(f"{kind} where a number is expected", "declare a timestamp feature")
    elif not (
        pa.types.is_boolean(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    ):
        cells.refuse(f"{kind} where a number is expected", "cast the column in the source")
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    values = values.cast(pa.float64(), safe=False)
    infinite = mask_of(pc.is_inf(values))
    cells.note(
        infinite,
        "the number is infinite",
        "correct the source, or set policies.infinite_numbers: null",
        policy=f"infinite_numbers: {policies.infinite_numbers}",
    )
    lost = mask_of(pc.is_nan(values)) | infinite
    return (
        pc.if_else(pa.array(lost), pa.scalar(None, pa.float64()), values) if lost.any() else values
    )


def decide_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a category column that came as text: int64 if all of it is whole numbers.

    Decided over the whole column; a number with a leading zero ("007") makes it text, and
    "3.0" is a whole number that a null in the source turned into a float.
    """
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    words = whole.dictionary
    if len(words) == 0:
        return pa.chunked_array([pa.nulls(len(whole))])
    if _all(words, _WHOLE):
        numbers = words.cast(pa.int64())
    elif _all(words, _WHOLE_FLOAT) and not _any(words, r"^(-?0[0-9]|-0$)"):
        numbers = words.cast(pa.float64()).cast(pa.int64())
    else:
        return pa.chunked_array([whole])
    return pa.chunked_array([numbers.take(whole.indices)])


def join_batches(parts: Sequence[pa.Array], cells_place: str, *, untyped: bool) -> pa.ChunkedArray:
    """Return the batches of one converted column as one column of one type.

    Raises:
        DataError: files disagree on whether the column is text or numbers.
    """
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if not kinds:
        return pa.chunked_array([pa.nulls(sum(len(part) for part in parts))])
    target = _common_type(kinds)
    if target is None:
        names = " and ".join(sorted(map(str, kinds)))
        raise DataError(f"{cells_place}: {names} in different files; cast them to one type")
    joined = pa.chunked_array([part.cast(target) for part in parts], target)
    return decide_type(joined) if untyped and pa.types.is_dictionary(target) else joined


def _common_type(kinds: set[pa.DataType]) -> pa.DataType | None:
    """The widest type where the files differ in width alone."""
    if len(kinds) == 1:
        return next(iter(kinds))
    for check, wide in (
        (pa.types.is_integer, pa.int64()),
        (is_text, pa.large_string()),
        (_is_text_dictionary, pa.dictionary(pa.int32(), pa.large_string())),
        (lambda kind: is_list(kind) and is_text(kind.value_type), pa.list_(pa.large_string())),
        (
            lambda kind: is_list(kind) and pa.types.is_integer(kind.value_type),
            pa.list_(pa.int64()),
        ),
    ):
        if all(check(kind) for kind in kinds):
            return wide
    return None


def _is_text_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and is_text(kind.value_type)


def _category(cells: Cells, feature: Feature) -> pa.Array:
    values, kind = cells.values, cells.values.type
    if is_text(kind):
        return values.cast(pa.large_string()).dictionary_encode()
    if pa.types.is_uint64(kind) or pa.types.is_boolean(kind):
        return values
    if pa.types.is_integer(kind):
        return values.cast(pa.int64())
    if pa.types.is_floating(kind):
        return _whole_floats(cells)
    if is_list(kind):
        cells.refuse(
            "a list where one value is expected",
            f"declare feature '{feature.name}' multi_categorical (vector for numbers)",
        )
    cells.refuse(
        f"{kind} where a category is expected",
        f"declare feature '{feature.name}' timestamp or numeric, or cast the column to text",
    )


def _whole_floats(cells: Cells) -> pa.Array:
    """Whole numbers that a null made floats."""
    numbers = np.asarray(cells.values.cast(pa.float64()).fill_null(np.nan))
    null = np.isnan(numbers)
    odd = ~null & ((numbers != np.floor(numbers)) | (np.abs(numbers) > 2.0**53))
    cells.note(
        odd,
        "a fraction or a float above 2**53 in a categorical column",
        "declare the feature numeric, or cast the column to integers or text in the source",
    )
    return pa.array(np.where(null | odd, 0, numbers).astype(np.int64), mask=null)


def _categories(cells: Cells, feature: Feature, separator: str | None) -> pa.Array:
    values, kind = cells.values, cells.values.type
    if is_text(kind):
        if separator is None:
            cells.refuse(
                "text where a list is expected",
                f"give the multi_categorical feature '{feature.name}' a separator, "
                'as in separator: "|"',
            )
        return values
    if not is_list(kind):
        cells.refuse(
            f"one {kind} where a list is expected",
            f"declare feature '{feature.name}' categorical",
        )
    inner = kind.value_type
    if pa.types.is_dictionary(inner):
        inner = inner.value_type
    if is_text(inner) or pa.types.is_integer(inner) or pa.types.is_boolean(inner):
        return values.cast(pa.list_(inner))
    if pa.types.is_null(inner):
        return pa.nulls(len(values))
    cells.refuse(
        f"lists of {inner} where categories are expected",
        f"declare feature '{feature.name}' as vector, or cast the values to text",
    )


def _text(cells: Cells, feature: Feature) -> pa.Array:
    kind = cells.values.type
    if is_text(kind):
        return cells.values
    if is_list(kind):
        cells.refuse(
            "a list where text is expected", f"declare feature '{feature.name}' multi_categorical"
        )
    cells.refuse(
        f"{kind} where text is expected", f"declare feature '{feature.name}' categorical or numeric"
    )


def _vector(cells: Cells, dim: int, policies: Policies) -> pa.Array:
    values, kind = cells.values, cells.values.type
    if is_text(kind) and cells.untyped:
        values = _parse_vectors(cells)
    elif not is_list(kind):
        cells.refuse(f"one {kind} where a vector of {dim} numbers is expected", "declare numeric")
    inner = values.type.value_type
    if not (pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)):
        cells.refuse(f"lists of {inner} where a vector is expected", "declare multi_categorical")
    lists = values.cast(pa.large_list(pa.float32()))
    lengths = np.asarray(pc.list_value_length(lists).fill_null(-1))
    wrong = (lengths >= 0) & (lengths != dim)
    seen = sorted({int(length) for length in lengths[wrong]})[:3]
    cells.note(
        wrong,
        f"a vector of {', '.join(map(str, seen))} numbers where dim: {dim} is declared",
        "correct the source or the feature's dim",
        show=False,
    )
    owner = np.repeat(np.arange(len(lists)), np.maximum(lengths, 0))
    flat = np.asarray(lists.flatten().fill_null(np.nan))
    infinite, unknown = np.zeros(len(lists), bool), np.zeros(len(lists), bool)
    infinite[owner[np.isinf(flat)]] = True
    unknown[owner[np.isnan(flat)]] = True
    cells.note(
        unknown, "null or NaN inside a vector", "make the whole cell null, or fill it", show=False
    )
    cells.note(
        infinite,
        "a vector holds an infinite number",
        "correct the source, or set policies.infinite_numbers: null",
        policy=f"infinite_numbers: {policies.infinite_numbers}",
        show=False,
    )
    if not infinite.any():
        return lists
    return pc.if_else(pa.array(infinite), pa.scalar(None, lists.type), lists)


def _parse_vectors(cells: Cells) -> pa.Array:
    """Text such as "[0.1, 0.2]" or "0.1 0.2" as lists of numbers."""
    plain = pc.replace_substring_regex(cells.values, r"[\[\](){},;|\s]+", " ")
    parts = pc.split_pattern(pc.utf8_trim_whitespace(plain), " ")
    empty = mask_of(pc.equal(plain, " ")) | mask_of(pc.is_null(plain))
    words = parts.flatten()
    owner = np.repeat(np.arange(len(parts)), np.asarray(pc.list_value_length(parts).fill_null(0)))
    bad = np.zeros(len(parts), bool)
    bad[owner[~mask_of(pc.match_substring_regex(words, _FLOAT))]] = True
    bad &= ~empty
    cells.note(bad, "not a vector of numbers", "write numbers apart by commas or blanks")
    parts = pc.if_else(pa.array(bad | empty), pa.scalar(None, parts.type), parts)
    return parts.cast(pa.list_(pa.float64()))


def _timestamp(cells: Cells, unit: TimeUnit) -> pa.Array:
    raw = raw_times(cells, unit)
    null = raw == NULL_TIME
    known = raw[~null]
    if unit != "datetime" and len(known):
        latest = latest_seconds(Policies())
        looks = guess_unit(known, latest)
        # Few points in time lie before 1990 in one unit and after it in another.
        if looks is not None and UNITS[looks] != UNITS[unit]:
            cells.refuse(
                f"declared in {unit}, but the values are plausible as {looks}",
                f"set the feature's unit to {looks}",
            )
    values = pa.array(raw, mask=null)
    return values.cast(pa.timestamp("us", tz="UTC")) if unit == "datetime" else values


_FLOAT = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[iI]nf(inity)?|nan|NaN)$"


def _parse_numbers(cells: Cells) -> pa.Array:
    """Numbers of a CSV file."""
    values = cells.values
    if not cells.untyped:
        cells.refuse(
            "text where a number is expected",
            "cast the column in the source, or declare the feature categorical",
        )
    null = mask_of(pc.is_null(values)) | mask_of(pc.is_in(values, pa.array(NULL_WORDS)))
    parses = mask_of(pc.match_substring_regex(values, _FLOAT))
    cells.note(
        ~null & ~parses,
        "text where a number is expected",
        "correct the value, or declare the feature categorical",
    )
    nothing = pa.scalar(None, values.type)
    return pc.if_else(pa.array(parses & ~null), values, nothing).cast(pa.float64())


def _all(words: pa.Array, pattern: str) -> bool:
    return bool(mask_of(pc.match_substring_regex(words, pattern)).all())


def _any(words: pa.Array, pattern: str) -> bool:
    return bool(mask_of(pc.match_substring_regex(words, pattern)).any())
