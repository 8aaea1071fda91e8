"""What requests hold, as the types that a model reads: exact, or refused with row and column.

A request comes from another program, and comes as that program has it: pandas makes floats of whole
numbers among which one is missing, JSON knows no times, an id may be text on its way. A value is
taken where a CSV file's would be, and where it means one value of the model's type alone: whole
numbers as text without leading zeros ("007" is another id than 7) or as floats below 2**53, numbers
as text. Nothing is rounded, and text is never made of numbers. Other types are left to the readers
of features, which refuse them as they do in tables.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.kinds.feature import Feature, Fitted
from recsys.features.kinds.number_lists import FLOAT
from recsys.features.requests.origin import RequestOrigin
from recsys.features.tables.ledger import is_list, is_text, mask_of
from recsys.features.tables.plain_values import plain
from recsys.features.tables.times import NULL_WORDS

_WHOLE = r"^(0|-?[1-9][0-9]{0,19})$"
_INEXACT_FLOAT = 2.0**53
_INTEGERS = (pa.int64(), pa.uint64())
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Read:
    """Values (N,) of a wanted type, and which of them could not be read, (N,) bool, or none."""

    values: pa.Array
    bad: _Mask | None = None


def kinds_of(features: Iterable[Feature], fitted: Fitted) -> dict[str, pa.DataType]:
    """Return the columns that features read with the types of their values.

    Of a column that several read, that of the one whose conversion loses nothing.
    """
    found: dict[str, tuple[int, pa.DataType]] = {}
    for feature in features:
        types = feature.request_types(fitted)
        for name, reader in feature.readers().items():
            if name in types and (name not in found or reader.priority < found[name][0]):
                found[name] = reader.priority, types[name]
    return {name: kind for name, (_, kind) in found.items()}


def as_read(
    table: pa.Table,
    kinds: Mapping[str, pa.DataType],
    origin: RequestOrigin,
    keys: Sequence[str] = (),
) -> pa.Table:
    """Return requests with their columns in the types that a model reads, where they differ.

    Args:
        table: the requests.
        kinds: column -> type of its values, or of lists of them; other columns stay as they are.
        origin: of the requests, for messages.
        keys: columns of ids: empty text is no missing number there, and floats are whole numbers
            whatever their type is.

    Raises:
        DataError: a value cannot be read exactly; row and column are named.
    """
    for place, name in enumerate(table.column_names):
        values = one_array(table.column(name))
        kind = kinds.get(name)
        if kind is None and name in keys and _is_number(values.type):
            kind = pa.int64()
        refuse_bytes(values, name, origin)
        if name in kinds and _says_nothing(values):
            values = pa.nulls(len(values))
        elif kind is not None:
            values = _column(values, kind, name, origin, is_key=name in keys)
        if values.type != table.schema.field(name).type:
            table = table.set_column(place, name, values)
    return table


def item_ids_as(values: pa.Array, kind: pa.DataType, refuse: Callable[[int, str], Any]) -> pa.Array:
    """Return item ids (T,) as those of a catalogue; null where it can have no such id.

    Args:
        values: the ids.
        kind: of the catalogue's.
        refuse: called with the number of an id that is none, and what is expected.
    """
    values = plain(values)
    if is_text(kind):
        return values.cast(kind)
    read = _whole(values, kind, takes_null_words=False)
    bad = np.asarray(values.is_valid()) if read.values.type != kind else read.bad
    if bad is not None and bad.any():
        refuse(int(np.flatnonzero(bad)[0]), "a whole number")
    return read.values if read.values.type == kind else pa.nulls(len(values), kind)


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array of a type that Arrow computes with."""
    values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, values.type)
    return plain(values)


def refuse_bytes(values: pa.Array, name: str, origin: RequestOrigin) -> None:
    """Refuse a column of bytes, which may be text of any encoding.

    Raises:
        DataError: it is one.
    """
    rows = np.arange(len(values))
    while is_list(values.type):
        rows = np.repeat(rows, np.asarray(pc.list_value_length(values).fill_null(0)))
        values = values.flatten()
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        known = rows[np.asarray(values.is_valid())]
        row = int(known[0]) if len(known) else None
        raise origin.error(
            "bytes, where text or numbers are expected",
            name,
            row,
            remedy="decode them, as in value.decode('utf-8')",
        )


def _column(
    values: pa.Array, kind: pa.DataType, name: str, origin: RequestOrigin, *, is_key: bool
) -> pa.Array:
    """Return one column in its type; of lists what is in them."""
    if not (is_list(kind) and is_list(values.type)):
        found = _exact(values, kind, is_key=is_key)
        _check(found, values, kind, name, np.arange(len(values)), origin)
        return found.values
    lengths = np.asarray(pc.list_value_length(values).fill_null(0)).astype(np.int64)
    inside = plain(values.flatten())
    found = _exact(inside, kind.value_type, is_key=False)
    _check(found, inside, kind.value_type, name, np.repeat(np.arange(len(values)), lengths), origin)
    if found.values.type == values.type.value_type:
        return values
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
    null = values.is_null() if values.null_count else None
    return pa.LargeListArray.from_arrays(offsets, found.values, mask=null)


def _check(
    found: _Read,
    values: pa.Array,
    kind: pa.DataType,
    name: str,
    rows: NDArray[np.int64],
    origin: RequestOrigin,
) -> None:
    """Refuse values that could not be read; rows (N,) is the request of each."""
    if found.bad is None or not found.bad.any():
        return
    at = int(np.flatnonzero(found.bad)[0])
    what = "a number" if pa.types.is_floating(kind) else "a whole number"
    raise origin.error(
        f"{values[at].as_py()!r}, where {what} is expected as in training",
        name,
        int(rows[at]),
        remedy="correct the value, or give null where it is not known",
    )


def _exact(values: pa.Array, kind: pa.DataType, *, is_key: bool) -> _Read:
    if values.type == kind:
        return _Read(values)
    if kind in _INTEGERS:
        return _whole(values, kind, takes_null_words=not is_key)
    if pa.types.is_floating(kind) and is_text(values.type):
        null, words = _null_words(values), values
        parses = mask_of(pc.match_substring_regex(words, FLOAT))
        numbers = _only(words, parses & ~null).cast(pa.float64())
        return _Read(numbers, ~parses & ~null)
    return _Read(values)


def _whole(values: pa.Array, kind: pa.DataType, *, takes_null_words: bool) -> _Read:
    """Return whole numbers; null, and not bad, where one is beyond those of `kind`."""
    given = values.type
    if is_text(given):
        null = np.asarray(values.is_null())
        null = null | _null_words(values) if takes_null_words else null
        whole = mask_of(pc.match_substring_regex(values, _WHOLE))
        return _Read(_cast(_only(values, whole), kind), ~whole & ~null)
    if pa.types.is_floating(given) or pa.types.is_decimal(given):
        numbers = np.asarray(values.cast(pa.float64(), safe=False).fill_null(np.nan))
        null = np.isnan(numbers)
        bad = ~null & ((numbers != np.floor(numbers)) | (np.abs(numbers) >= _INEXACT_FLOAT))
        ids = pa.array(np.where(null | bad, 0, numbers).astype(np.int64), mask=null | bad)
        return _Read(_cast(ids, kind), bad)
    if pa.types.is_integer(given):
        return _Read(_cast(values, kind))
    if pa.types.is_boolean(given):
        return _Read(values, np.asarray(values.is_valid()))
    return _Read(values)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return whole numbers, or text of them, as `kind`; null where it has no such number."""
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        bounds = np.iinfo(kind.to_pandas_dtype())
        found = [None if value is None else int(value) for value in values.to_pylist()]
        kept = [
            one if one is not None and bounds.min <= one <= bounds.max else None for one in found
        ]
        return pa.array(kept, kind)


def _says_nothing(values: pa.Array) -> bool:
    """Whether all values are null or NaN, of whatever type a program gives to nothing."""
    if len(values) == 0:
        return False
    if pa.types.is_floating(values.type):
        return bool(np.isnan(np.asarray(values.fill_null(np.nan))).all())
    return bool(values.null_count == len(values))


def _null_words(values: pa.Array) -> _Mask:
    words = mask_of(pc.is_in(values, pa.array(NULL_WORDS, values.type)))
    return np.asarray(words | np.asarray(values.is_null()), bool)


def _only(values: pa.Array, kept: _Mask) -> pa.Array:
    return pc.if_else(pa.array(kept), values, pa.scalar(None, values.type))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))
