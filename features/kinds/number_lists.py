"""Columns of lists of numbers: Arrow lists as they are, text of a CSV file parsed."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.tables.ledger import Cells, is_list, is_text, mask_of

FLOAT = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[iI]nf(inity)?|nan|NaN)$"
"""Text that is a number."""


class ExpectedList(NamedTuple):
    """How messages call what a row has to be, and what to do where it is something else."""

    whole: str
    """"a vector of 3 numbers"."""
    short: str
    """"a vector"."""
    parsed: str
    """"a vector of numbers"."""
    if_single: str
    """Remedy where a row is one value."""
    if_other: str
    """Remedy where it is a list of no numbers."""


def float_lists(cells: Cells, expected: ExpectedList) -> pa.Array:
    """Return a batch as large_list<float32>, (N,).

    Raises:
        DataError: the column is no column of lists of numbers.
    """
    values, kind = cells.values, cells.values.type
    if is_text(kind) and cells.untyped:
        values = _parsed(cells, expected.parsed)
    elif not is_list(kind):
        cells.refuse(f"one {kind} where {expected.whole} is expected", expected.if_single)
    inner = values.type.value_type
    if not (pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)):
        cells.refuse(f"lists of {inner} where {expected.short} is expected", expected.if_other)
    return values.cast(pa.large_list(pa.float32()))


def _parsed(cells: Cells, what: str) -> pa.Array:
    """Text such as "[0.1, 0.2]" or "0.1 0.2" as lists of numbers."""
    plain = pc.replace_substring_regex(cells.values, r"[\[\](){},;|\s]+", " ")
    parts = pc.split_pattern(pc.utf8_trim_whitespace(plain), " ")
    empty = mask_of(pc.equal(plain, " ")) | mask_of(pc.is_null(plain))
    words = parts.flatten()
    owner = np.repeat(np.arange(len(parts)), np.asarray(pc.list_value_length(parts).fill_null(0)))
    bad = np.zeros(len(parts), bool)
    bad[owner[~mask_of(pc.match_substring_regex(words, FLOAT))]] = True
    bad &= ~empty
    cells.note(bad, f"not {what}", "write numbers apart by commas or blanks")
    parts = pc.if_else(pa.array(bad | empty), pa.scalar(None, parts.type), parts)
    return parts.cast(pa.list_(pa.float64()))
