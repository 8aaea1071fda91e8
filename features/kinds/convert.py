"""Columns as their features need them; each refusal names the row that does not fit.

What comes out keeps its Arrow type where a value may be looked up (text, whole numbers,
booleans), is float64 for numbers, list<float32> for vectors, and whole numbers or UTC
timestamps for points in time. Null stays null; NaN counts as null.
"""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import DataError
from recsys.features.kinds.feature import Feature, Reader
from recsys.features.kinds.number_lists import FLOAT
from recsys.features.tables.ledger import Cells, is_list, is_text, mask_of
from recsys.features.tables.number_text import remedy_for
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import NULL_WORDS

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
_WHOLE_FLOAT = r"^-?[0-9]{1,15}(\.0*)?$"


def columns_of(features: Iterable[Feature]) -> list[str]:
    """Return the columns that features read, each once."""
    return list(dict.fromkeys(name for feature in features for name in feature.columns))


def convert_columns(
    cell: Callable[[str], Cells], features: Sequence[Feature], policies: Policies
) -> dict[str, pa.Array]:
    """Return a batch of every column that `features` read, (N,) each, fit for all that read it.

    `cell` returns a column of the batch by its name.

    Raises:
        DataError: a column's type goes with none of the feature's kind; single bad values and rows
            go to the ledger.
    """
    readers: dict[str, list[Reader]] = {}
    for feature in features:
        for name, reader in feature.readers().items():
            readers.setdefault(name, []).append(reader)
    columns = {name: convert(cell(name), some, policies) for name, some in readers.items()}
    for feature in features:
        feature.check_rows(cell, columns)
    return columns


def convert(cells: Cells, readers: Sequence[Reader], policies: Policies) -> pa.Array:
    """Return a batch of a column, (N,), fit for every feature that reads it.

    Raises:
        DataError: the column's type goes with none of the feature's kind; single bad values
            go to the ledger.
    """
    if pa.types.is_null(cells.values.type):
        return cells.values
    by_priority = sorted(readers, key=lambda reader: reader.priority)
    # Every reader checks the column; what the first makes of it loses nothing the others need.
    results = [reader.convert(cells, policies) for reader in by_priority]
    return results[0]


def number(cells: Cells, policies: Policies, remedy: str = "") -> pa.Array:
    """Return a batch of numbers as float64; NaN becomes null, infinities follow the policy.

    remedy: for a column of another type, where it is none of a feature.
    """
    values, kind = cells.values, cells.values.type
    if pa.types.is_null(kind):
        return values.cast(pa.float64())
    if is_list(kind):
        cells.refuse("a list where one number is expected", remedy or "declare a vector feature")
    if is_text(kind):
        values = _parsed_numbers(cells, remedy)
    elif pa.types.is_temporal(kind):
        cells.refuse(f"{kind} where a number is expected", remedy or "declare a timestamp feature")
    elif not (
        pa.types.is_boolean(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    ):
        cells.refuse(
            f"{kind} where a number is expected", remedy or "cast the column in the source"
        )
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    values = values.cast(pa.float64(), safe=False)
    infinite = mask_of(pc.is_inf(values))
    cells.note(
        infinite,
        "the number is infinite",
        "correct the source",
        rule=policies.rule("infinite_numbers", "null"),
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


def join_batches(
    parts: Sequence[pa.Array], file: object, column: str, *, untyped: bool
) -> pa.ChunkedArray:
    """Return the batches of one converted column as one column of one type.

    `file` and `column` are where they come from, for messages.

    Raises:
        DataError: files disagree on whether the column is text or numbers.
    """
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if not kinds:
        return pa.chunked_array([pa.nulls(sum(len(part) for part in parts))])
    target = common_type(kinds)
    if target is None:
        names = " and ".join(sorted(map(str, kinds)))
        raise DataError(
            f"{names} in different files", file=file, column=column, remedy="cast them to one type"
        )
    joined = pa.chunked_array([part.cast(target) for part in parts], target)
    return decide_type(joined) if untyped and pa.types.is_dictionary(target) else joined


def common_type(kinds: set[pa.DataType]) -> pa.DataType | None:
    """Return the widest of converted types that differ in width alone; None: they differ more."""
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


def _parsed_numbers(cells: Cells, remedy: str) -> pa.Array:
    """Numbers of a CSV file."""
    values = cells.values
    if not cells.untyped and cells.written.is_plain:
        cells.refuse(
            "text where a number is expected",
            remedy or "cast the column in the source, or declare the feature categorical",
        )
    null = mask_of(pc.is_null(values)) | mask_of(
        pc.is_in(values, pa.array(NULL_WORDS, values.type))
    )
    pattern = FLOAT if cells.written.is_plain else cells.written.pattern
    parses = mask_of(pc.match_substring_regex(values, pattern))
    bad = ~null & ~parses
    if bad.any():
        first, ledger = str(values[int(bad.argmax())].as_py()), cells.ledger
        how = remedy_for(first, ledger.files.table, cells.written, trained=ledger.trained)
        cells.note(bad, "text where a number is expected", how)
    nothing = pa.scalar(None, values.type)
    good = pc.if_else(pa.array(parses & ~null), values, nothing)
    return cells.written.as_plain(good).cast(pa.float64())


def _all(words: pa.Array, pattern: str) -> bool:
    return bool(mask_of(pc.match_substring_regex(words, pattern)).all())


def _any(words: pa.Array, pattern: str) -> bool:
    return bool(mask_of(pc.match_substring_regex(words, pattern)).any())
