"""What a table looks like: for every column its type, nulls, distinct values and shape."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.propose.number_signs import signs_of
from recsys.features.tables.ledger import Ledger, is_list, is_text, mask_of
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.plain_values import plain
from recsys.features.tables.reading import Batch, TableFiles
from recsys.features.tables.sources import LogSource
from recsys.features.tables.times import NULL_WORDS

ColumnType = Literal["integer", "float", "boolean", "string", "time", "list", "null", "other"]
_SAMPLE_ROWS = 1_000_000
_ROW_NUMBERS = r"__index_level_\d+__|Unnamed: \d+"
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
            # A column with an infinity is one of numbers: no name of a thing is infinite.
            return bool(
                (np.isfinite(self.numbers) & (self.numbers == np.floor(self.numbers))).all()
            )
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
    """A table's columns; rows looked at, whether these are all, and why columns are left out."""

    files: TableFiles
    given: str
    columns: dict[str, ColumnProfile]
    rows: int
    complete: bool
    left_out: tuple[str, ...] = ()
    written: NumberText = PLAIN
    """How its text writes numbers."""
    logs: tuple[LogSource, ...] = ()
    """The logs that it is read from one after the other; none: from `given`."""

    @property
    def name(self) -> str:
        """What the table is called in messages."""
        return self.files.table


def profile_table(files: TableFiles, given: str) -> TableProfile:
    """Look at the first million rows of a table.

    Raises:
        DataError: the table is empty, cannot be parsed, or a column has several types.
    """
    parts: list[Batch] = []
    rows, complete = 0, True
    left_out = _left_out(files)
    looked_at = [name for name in files.columns if name not in left_out]
    partial = {name: path for name, path in files.partial().items() if name in looked_at}
    for batch in files.batches(looked_at, some=partial):
        if rows >= _SAMPLE_ROWS:
            complete = False
            break
        parts.append(batch)
        rows += len(batch.rows)
    if rows == 0:
        raise DataError("the table is empty", file=given)
    table = _joined(parts, files)
    values = {name: _whole(table.column(name)) for name in table.column_names}
    texts = {name: one for name, one in values.items() if files.is_untyped(name)}
    signs = signs_of({name: one for name, one in texts.items() if is_text(one.type)})
    typed = {name: _typed(one, signs.written) for name, one in texts.items()}
    of_parts = _of_parts(values)
    columns = {
        name: ColumnProfile(name, one, _type(one.type))
        for name, one in (values | typed).items()
        if name not in of_parts
    }
    nulls = [
        f"column '{name}' is null in the rows of files without it, such as {path}"
        for name, path in partial.items()
    ]
    said = (*files.said, *left_out.values(), *of_parts.values(), *signs.said, *nulls)
    why = tuple(f"{given}: {sentence}" for sentence in said)
    return TableProfile(files, given, columns, rows, complete, why, signs.written)


def _left_out(files: TableFiles) -> dict[str, str]:
    """Return the columns that are not looked at, and why."""
    found: dict[str, str] = {}
    for name in files.columns:
        if not name.strip():
            found[name] = "a column without a name is left out; pandas writes its row numbers so"
        elif re.fullmatch(_ROW_NUMBERS, name):
            found[name] = f"column '{name}' is left out: these are pandas' row numbers"
    return found


def _of_parts(columns: Mapping[str, pa.Array]) -> dict[str, str]:
    """Return the columns whose values have parts of their own, and why they are left out."""
    inner = {name: one.type for name, one in columns.items()}
    inner |= {name: kind.value_type for name, kind in inner.items() if is_list(kind)}
    return {
        name: f"column '{name}' is {columns[name].type}, which nothing reads, and is left out: "
        "write what is in it as columns of their own"
        for name, kind in inner.items()
        if pa.types.is_nested(kind)
    }


def _joined(parts: Sequence[Batch], files: TableFiles) -> pa.Table:
    """Return the batches as one table, all times in UTC.

    Raises:
        DataError: a column has values of two types without a common type.
    """
    tables = [_in_utc(part.table) for part in parts]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        first = tables[0]
        for part, table in zip(parts, tables, strict=True):
            for name in first.column_names:
                pair = [first.select([name]), table.select([name])]
                try:
                    pa.concat_tables(pair, promote_options="permissive")
                except (pa.ArrowTypeError, pa.ArrowInvalid):
                    kinds = [one.schema.field(name).type for one in pair]
                    here, there = int(parts[0].rows[0]), int(part.rows[0])
                    raise Ledger(files).unlike(
                        name, ("values", kinds[0], here), (kinds[1], there)
                    ) from None
        raise


def _in_utc(table: pa.Table) -> pa.Table:
    """A time without a zone is one of UTC, as the reader of rows has it."""
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            times = table.column(number).cast(pa.timestamp("us", field.type.tz), safe=False)
            whole = times.cast(pa.int64()).cast(pa.timestamp("us", "UTC"))
            table = table.set_column(number, field.name, whole)
    return table


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece, of a type that Arrow computes with."""
    values: Any = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    return plain(values)


def _typed(texts: pa.Array, written: NumberText) -> pa.Array:
    """Text of a CSV file as numbers where all of it is."""
    encoded = texts.dictionary_encode()
    words = encoded.dictionary
    if not written.is_plain:
        null = mask_of(pc.is_in(words, pa.array(NULL_WORDS, words.type)))
        fits = mask_of(pc.match_substring_regex(words, written.pattern))
        if (fits | null).all():
            words = pc.if_else(pa.array(null), words, written.as_plain(words))
        elif mask_of(pc.match_substring_regex(words, _FLOAT)).any():
            return texts
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
