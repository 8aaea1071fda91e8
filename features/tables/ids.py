"""External ids of users and items: exact, of one type in every table, never through a float.

Ids are whole numbers (int64; uint64 where they need it) or text; where the schema says how they are
written (`recsys.features.tables.id_forms`), they are text. What comes from CSV is text
whose type is decided over every file of every table that holds the id: whole numbers without
leading zeros throughout become integers, anything else stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.codes import counts_of, looked_up
from recsys.core.errors import DataError
from recsys.features.tables.growing import GrowingArray
from recsys.features.tables.id_faults import id_faults
from recsys.features.tables.id_forms import INEXACT_FLOAT, IdForm
from recsys.features.tables.ledger import Cells, Ledger, Mask, is_text, mask_of
from recsys.features.tables.near_ids import near_match
from recsys.features.tables.sources import Policies, Rule

_WHOLE = r"^(0|-?[1-9][0-9]*)$"
_WHOLE_FLOAT = r"^-?[0-9]+(\.0*)?([eE]\+?[0-9]+)?$"
_NUMBER = r"^-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
_WAITING = 1 << 20
"""Ids of batches that wait to be merged."""
_CORRECT = "correct the source"
_FLOAT_REMEDY = "a null made floats of the numbers: write them as integers"
_FLOAT_OPTION = "integer to cast the whole ones"


@dataclass(frozen=True, eq=False)
class Ids:
    """Ids of the rows of one table: distinct (D,) in no order, codes (N,) int32 into it.

    rows (N,) int64 numbers the rows in the files; untyped: text whose type is not decided yet.
    """

    column: str
    distinct: pa.Array
    codes: NDArray[np.int32]
    rows: NDArray[np.int64]
    ledger: Ledger
    untyped: bool

    @property
    def place(self) -> str:
        """The files and the column, for messages."""
        return f"{self.files}, column '{self.column}'"

    @property
    def files(self) -> str:
        """The files, for messages."""
        paths = self.ledger.files.paths
        return f"{paths[0]} and {len(paths) - 1} more files" if len(paths) > 1 else f"{paths[0]}"

    def used(self) -> pa.Array:
        """Return the distinct ids that a row has."""
        seen = counts_of(self.codes, len(self.distinct)) > 0
        return self.distinct.filter(pa.array(seen))

    def with_rows(self, codes: NDArray[np.int32], rows: NDArray[np.int64]) -> "Ids":
        """Return the same ids for other rows; `distinct` stays as it is."""
        return Ids(self.column, self.distinct, codes, rows, self.ledger, self.untyped)


class IdCheck:
    """Checks a column of ids batch by batch; keeps nothing but the type that it met first."""

    def __init__(
        self, column: str, ledger: Ledger, policies: Policies, form: IdForm | None = None
    ) -> None:
        """Get ready; `form` says how the ids are written, None: as they come."""
        self.column, self._form = column, form
        self._ledger = ledger
        self._policies = policies
        self._first: tuple[pa.DataType, int] | None = None

    def check(self, cells: Cells) -> tuple[pa.DictionaryArray, Mask]:
        """Return the batch's ids, dictionary-encoded, and which of them are usable, (N,) bool.

        Raises:
            DataError: the column's type cannot be an id, or changes between files.
        """
        values = _integers_or_text(cells, self._policies, self._form)
        if len(values) and not pa.types.is_null(values.type):
            self.check_type(values.type, int(cells.rows[0]))
        encoded = values.dictionary_encode()
        if self._form is not None and is_text(encoded.dictionary.type):
            written = self._form.written(encoded.dictionary).dictionary_encode()
            codes = written.indices.take(encoded.indices)
            encoded = pa.DictionaryArray.from_arrays(codes, written.dictionary)
        return encoded, self._usable(cells, encoded)

    @property
    def first(self) -> tuple[pa.DataType, int] | None:
        """The type that was met first, and a row that has it."""
        return self._first

    def check_type(self, kind: pa.DataType, row: int) -> None:
        """Refuse ids of another type than those of earlier rows.

        Raises:
            DataError: so it is.
        """
        first = self._first or (kind, row)
        if is_text(first[0]) != is_text(kind):
            raise self._ledger.unlike(self.column, ("ids", *first), (kind, row))
        self._first = first

    def _usable(self, cells: Cells, encoded: pa.DictionaryArray) -> Mask:
        """Note null, empty, padded and spoilt ids; return what stays."""
        rule = self._policies.rule("bad_ids", "drop to leave such rows out")
        null = np.asarray(encoded.indices.is_null())
        cells.note(null, "the id is null", _CORRECT, rule=rule, show=False)
        usable = ~null
        if not is_text(encoded.dictionary.type):
            return usable
        codes = np.asarray(encoded.indices.fill_null(0))
        for fault in id_faults(encoded.dictionary):
            if fault.bad.any():
                bad = fault.bad[codes] & usable
                options = [] if self._ledger.trained else [fault.option]
                remedy = ", or ".join(part for part in (fault.remedy, *options) if part)
                cells.note(bad, fault.reason, remedy, rule=rule)
                usable &= ~bad
        return usable


class IdCollector:
    """Grows a column of checked ids; a row costs four bytes and its share of new ids.

    `form` is the one they were checked with: such ids are text, whatever the file says.
    """

    def __init__(self, column: str, ledger: Ledger, form: IdForm | None = None) -> None:
        self._column, self._form = column, form
        self._ledger = ledger
        self._codes = GrowingArray(np.int32)
        self._merged: tuple[int, pa.Array] | None = None
        self._dictionaries: list[tuple[int, pa.Array]] = []
        self._waiting = 0

    def add(self, ids: pa.DictionaryArray) -> None:
        """Add a batch of ids (N,), none of them null."""
        if len(ids):
            self._codes.append(np.asarray(ids.indices))
            self._dictionaries.append((len(ids), ids.dictionary))
            self._waiting += len(ids.dictionary)
            known = len(self._merged[1]) if self._merged else 0
            if self._waiting > max(_WAITING, known):
                self._merge()

    def _merge(self) -> None:
        """Have one dictionary for all batches: those of each would be as large as the log.

        Each doubling of the ids merges again, so an id is looked up a few times in all.
        """
        before = [] if self._merged is None else [self._merged]
        each = [*before, *self._dictionaries]
        words = [dictionary for _, dictionary in each]
        if any(_is_wide(part) for part in words):
            words = [part.cast(pa.uint64()) for part in words]
        elif not any(is_text(part.type) for part in words):
            words = [part.cast(pa.int64()) for part in words]
        if not words:
            words = [pa.array([], pa.int64() if self._form is None else pa.large_string())]
        merged = pa.concat_arrays(words).dictionary_encode()
        common, codes = np.asarray(merged.indices), self._codes.values()
        start = first = 0
        for size, dictionary in each:  # batch by batch, in place
            if first or self._merged is None:  # those merged before keep their codes
                part = codes[start : start + size]
                part[:] = common[first : first + len(dictionary)][part]
            start, first = start + size, first + len(dictionary)
        self._merged, self._dictionaries, self._waiting = (start, merged.dictionary), [], 0

    def finish(self, rows: NDArray[np.int64]) -> Ids:
        """Return everything added; rows (N,) are its row numbers."""
        self._merge()
        assert self._merged is not None, "merged just now"
        distinct, codes = self._merged[1], self._codes.values()
        used = counts_of(codes, len(distinct)) > 0
        if not used.all():  # ids of rows that left must not decide the type
            codes = looked_up((np.cumsum(used) - 1).astype(np.int32), codes)
            distinct = distinct.filter(pa.array(used))
        untyped = self._form is None and self._ledger.files.is_untyped(self._column)
        return Ids(self._column, distinct, codes, rows, self._ledger, untyped)


def settle_ids(columns: Sequence[Ids], policies: Policies, side: str = "") -> list[Ids]:
    """Give columns that hold the same ids one type: all integers or all text.

    `side`: "items" or "users", whose way of writing the schema may say; "": it may not.

    Raises:
        DataError: one table holds numbers and another text (both are named), or floats.
    """
    filled = [ids for ids in columns if len(ids.distinct)]
    typed = [ids for ids in filled if not ids.untyped]
    texts = [ids for ids in typed if is_text(ids.distinct.type)]
    numbers = [ids for ids in typed if not is_text(ids.distinct.type)]
    if texts and numbers:
        raise _unlike(numbers[0], texts[0], side)
    if texts:
        return [_as_type(ids, pa.large_string()) for ids in columns]
    open_ = [ids for ids in filled if ids.untyped]
    odd = [ids for ids in open_ if not _are_numbers(ids.distinct)]
    if odd and numbers:
        raise _unlike(numbers[0], odd[0], side)
    if odd:
        return [_as_type(ids, pa.large_string()) for ids in columns]
    whole = [_untyped_to_integer(ids, policies) if ids in open_ else ids for ids in columns]
    wide = any(_is_wide(ids.distinct) for ids in whole)
    return [_as_type(ids, pa.uint64() if wide else pa.int64()) for ids in whole]


def _integers_or_text(cells: Cells, policies: Policies, form: IdForm | None) -> pa.Array:
    """Return a batch of ids as int64, uint64 or large_string; with a form as the last."""
    values, kind = cells.values, cells.values.type
    if form is not None:
        whole = pa.types.is_floating(kind) and form.drops_trailing_zero
        values = (
            _floats(cells, policies, said=False)
            if whole
            else _integers_or_text(cells, policies, None)
        )
        return values if pa.types.is_null(values.type) else values.cast(pa.large_string())
    if is_text(kind):
        return values.cast(pa.large_string())
    if pa.types.is_uint64(kind) or pa.types.is_null(kind):
        return values
    if pa.types.is_integer(kind):
        return values.cast(pa.int64())
    if pa.types.is_decimal(kind):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            cells.refuse(f"ids are {kind}", "cast them to int64 or to text")
    if pa.types.is_floating(kind):
        return _floats(cells, policies, said=True)
    what = "true or false" if pa.types.is_boolean(kind) else str(kind)
    cells.refuse(
        f"ids are {what}", "an id is a whole number or text: name the right column, or cast it"
    )


def _floats(cells: Cells, policies: Policies, *, said: bool) -> pa.Array:
    """Return whole floats as int64; `said`: as the policy `float_ids` says, which counts them."""
    numbers = np.asarray(cells.values.fill_null(np.nan), np.float64)
    null = np.isnan(numbers)
    filled = np.where(null, 0.0, numbers)
    fractional = filled != np.floor(filled)
    cells.note(
        fractional | np.isinf(filled),
        "the id is a fraction",
        "an id is a whole number or text: name the right column, or cast it in the source",
    )
    spoilt = ~fractional & (np.abs(filled) >= INEXACT_FLOAT)
    cells.note(
        spoilt,
        "the id came as a float of 2**53 or more, where whole numbers next to each other are "
        "the same float",
        "write the ids as integers or text in the source",
    )
    if said:
        cells.note(
            ~null & ~fractional & ~spoilt,
            "ids came as floats",
            _FLOAT_REMEDY,
            rule=policies.rule("float_ids", _FLOAT_OPTION),
        )
    safe = np.where(fractional | spoilt, 0.0, filled)
    return pa.array(safe.astype(np.int64), mask=null)


def _untyped_to_integer(ids: Ids, policies: Policies) -> Ids:
    """Cast numbers that came as text; "3.0" is a float that a null made."""
    whole = _matches(ids.distinct, _WHOLE)
    if whole.all():
        return _as_type(ids, None)
    for fault, reason, remedy, rule in (
        (
            ~_matches(ids.distinct, _WHOLE_FLOAT),
            "the id is a fraction",
            "an id is a whole number or text: name the right column, or correct the source",
            Rule(),
        ),
        (~whole, "ids came as floats", _FLOAT_REMEDY, policies.rule("float_ids", _FLOAT_OPTION)),
    ):
        at = np.flatnonzero(fault[ids.codes])
        if len(at):
            value = repr(ids.distinct[int(ids.codes[at[0]])].as_py())
            ids.ledger.note(
                ids.column,
                reason,
                ids.rows[at],
                remedy=remedy,
                rule=rule,
                value=value,
            )
            ids.ledger.check()
    numbers = np.asarray(ids.distinct.cast(pa.float64()))
    if (np.abs(numbers) >= INEXACT_FLOAT).any():
        raise DataError(
            "ids came as floats of 2**53 or more",
            file=ids.files,
            column=ids.column,
            remedy="write them as integers",
        )
    merged = pa.array(numbers.astype(np.int64)).dictionary_encode()
    codes = np.asarray(merged.indices).astype(np.int32)[ids.codes]
    return Ids(ids.column, merged.dictionary, codes, ids.rows, ids.ledger, False)


def _as_type(ids: Ids, kind: pa.DataType | None) -> Ids:
    """Cast the distinct ids; None: int64 where they fit, else uint64, else text."""
    kinds = [pa.int64(), pa.uint64(), pa.large_string()] if kind is None else [kind]
    for candidate in kinds:
        try:
            distinct = ids.distinct.cast(candidate)
        except pa.ArrowInvalid:
            continue
        return Ids(ids.column, distinct, ids.codes, ids.rows, ids.ledger, False)
    raise DataError(
        "ids are negative in one table and above 2**63 in another",
        file=ids.files,
        column=ids.column,
        remedy="make them text",
    )


def _unlike(numbers: Ids, texts: Ids, side: str) -> DataError:
    odd = np.flatnonzero(~_plain(texts.distinct)) if texts.untyped else np.array([0])
    example = texts.distinct[int(odd[0]) if len(odd) else 0].as_py()
    near = near_match(numbers.distinct, texts.distinct) if side else None
    options = [near.remedy(side)] if near is not None else []
    return DataError(
        f"holds whole numbers ({numbers.distinct[0].as_py()!r}), {texts.place} holds text "
        f"({example!r})",
        file=numbers.files,
        column=numbers.column,
        remedy=", or ".join([*options, "the same ids must have one type: cast one column"]),
    )


def _matches(values: pa.Array, pattern: str) -> Mask:
    return mask_of(pc.match_substring_regex(values, pattern))


def _plain(values: pa.Array) -> Mask:
    """Numbers without leading zeros."""
    return _matches(values, _NUMBER) & ~_matches(values, r"^(-?0[0-9]|-0$)")


def _are_numbers(values: pa.Array) -> bool:
    """Whether ids that came as text are all numbers, and small enough for an integer."""
    if not _plain(values).all():
        return False
    whole = values.filter(pc.match_substring_regex(values, _WHOLE))
    for kind in (pa.int64(), pa.uint64()):
        try:
            whole.cast(kind)
        except pa.ArrowInvalid:
            continue
        return True
    return False


def _is_wide(values: pa.Array) -> bool:
    """Whether unsigned numbers exceed int64."""
    if not pa.types.is_uint64(values.type) or not len(values):
        return False
    return bool(pc.max(values).as_py() >= 2**63)
