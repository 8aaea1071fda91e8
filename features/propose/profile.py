"""What a table looks like: for every column its type, nulls, distinct values and shape."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.tables.ledger import is_list, is_text, mask_of
from recsys.features.tables.reading import TableFiles
from recsys.features.tables.times import NULL_WORDS

ColumnType = Literal["integer", "float", "boolean", "string", "time", "list", "null", "other"]
_SAMPLE_ROWS = 1_000_000
_WHOLE = r"^(0|-?[1-9][0-9]{0,18})$"
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?[iI]nf(inity)?$"
_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+([zZ]|[+-][0-9:]+)?)?$"


@dataclass(frozen=True, eq=False)
class ColumnProfile:
    """One column of the rows looked at; values (N,): numbers decoded, CSV text made numbers."""

    name: str
    values: pa.Array
    type: ColumnType

    @cached_property
    def known(self) -> pa.Array:
        """The values that are not null (nor NaN)."""
        kept = self.values.drop_null()
        return kept.filter(pc.invert(pc.is_nan(kept))) if self.type == "float" else kept

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return len(self.values) - len(self.known)

    @cached_property
    def words(self) -> pa.Array:
        """Distinct values; of lists the distinct elements."""
        values = self.known.flatten() if self.type == "list" else self.known
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return pc.unique(values.drop_null())

    @property
    def distinct(self) -> int:
        """Number of distinct values."""
        return len(self.words)

    @cached_property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.type != "list" and self.nulls == 0 and self.distinct == len(self.values)

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """The known values as float64 (integer, float and boolean columns)."""
        values = self.known.cast(pa.int8()) if self.type == "boolean" else self.known
        return np.asarray(values.cast(pa.float64(), safe=False))

    @cached_property
    def is_whole(self) -> bool:
        """Whether all numbers are whole."""
        if self.type == "float":
            finite = self.numbers[np.isfinite(self.numbers)]
            return bool((finite == np.floor(finite)).all())
        return self.type == "integer"

    @cached_property
    def is_date_text(self) -> bool:
        """Whether all text is ISO 8601."""
        if self.type != "string" or not len(self.known):
            return False
        return bool(mask_of(pc.match_substring_regex(self.words, _ISO)).all())

    @cached_property
    def mean_words(self) -> float:
        """Blank-separated words a text."""
        spaces = pc.count_substring(pc.utf8_trim_whitespace(self.known), " ")
        return 1 + float(pc.mean(spaces).as_py() or 0)


@dataclass(frozen=True, eq=False)
class TableProfile:
    """A table's columns; rows looked at, and whether these are all."""

    files: TableFiles
    given: str
    columns: dict[str, ColumnProfile]
    rows: int
    complete: bool

    @property
    def name(self) -> str:
        """What the table is called in messages."""
        return self.files.table


def profile_table(files: TableFiles, given: str) -> TableProfile:
    """Look at the first million rows of a table.

    Raises:
        DataError: the table is empty or cannot be parsed.
    """
    parts: list[pa.Table] = []
    rows, complete = 0, True
    for batch in files.batches(files.columns):
        if rows >= _SAMPLE_ROWS:
            complete = False
            break
        parts.append(batch.table)
        rows += len(batch.rows)
    if rows == 0:
        raise DataError(f"{given}: the table is empty")
    table = pa.concat_tables(parts, promote_options="permissive")
    columns = {
        name: _profile(name, table.column(name), untyped=files.is_untyped(name))
        for name in table.column_names
    }
    return TableProfile(files, given, columns, rows, complete)


def _profile(name: str, column: pa.ChunkedArray, *, untyped: bool) -> ColumnProfile:
    values: Any = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if untyped:
        values = _typed(values)
    return ColumnProfile(name, values, _type(values.type))


def _typed(texts: pa.Array) -> pa.Array:
    """Text of a CSV file as numbers where all of it is."""
    encoded = texts.dictionary_encode()
    words = encoded.dictionary
    null = mask_of(pc.is_in(words, pa.array(NULL_WORDS, words.type)))
    # Digits with leading zeros ("0012") are names of things, not numbers with a point.
    pointed = mask_of(pc.match_substring_regex(words, "[.eE]")).any()
    kinds = ((_WHOLE, pa.int64()), *(((_FLOAT, pa.float64()),) if pointed else ()))
    for pattern, kind in kinds:
        match = mask_of(pc.match_substring_regex(words, pattern))
        # "NA" is a null among numbers and a word among words.
        if (match | null).all() and match.any():
            plain = pc.if_else(pa.array(match), words, pa.scalar(None, words.type))
            try:
                return plain.cast(kind).take(encoded.indices)
            except pa.ArrowInvalid:
                continue
    return texts


def _type(kind: pa.DataType) -> ColumnType:
    checks: dict[ColumnType, bool] = {
        "integer": pa.types.is_integer(kind),
        "float": pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        "boolean": pa.types.is_boolean(kind),
        "string": is_text(kind),
        "time": pa.types.is_timestamp(kind) or pa.types.is_date(kind),
        "list": is_list(kind),
        "null": pa.types.is_null(kind),
    }
    return next((name for name, holds in checks.items() if holds), "other")
