"""The columns of checked tables, each looked through once: types, gaps, distinct values, codes."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.tables.ledger import is_list


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a table: its Arrow type, rows without a value, distinct values."""

    table: str
    column: str
    type: str
    nulls: int
    distinct: int


@dataclass(frozen=True, eq=False)
class Column:
    """What there is to say of a column, and its values as numbers.

    codes: (N,) int64 of text and of whole numbers that are encoded, -1 for null; None of others.
    """

    facts: ColumnFacts
    codes: NDArray[np.int64] | None


def looked_through(table: str, name: str, column: pa.ChunkedArray, *, encode: bool) -> Column:
    """Return a column's facts.

    Args:
        table: its table's name.
        name: its own.
        column: (N,) of any type.
        encode: whether its values are wanted as codes, where they are single ones.
    """
    kind, several = column.type, is_list(column.type)
    values = pc.list_flatten(column) if several else column
    codes = None
    if pa.types.is_dictionary(values.type):
        codes, count = _of_dictionary(values)
        kind = kind if several else values.type.value_type
    elif encode and not several and not pa.types.is_null(kind):
        codes, count = _of_dictionary(values.dictionary_encode())
    else:
        count = _count(values)
    facts = ColumnFacts(table, name, str(kind), column.null_count, count)
    return Column(facts, None if several or not encode else codes)


def _of_dictionary(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], int]:
    """Return codes (N,), -1 for null, and how many distinct ones there are."""
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        if not whole.num_chunks:
            return np.zeros(0, np.int64), 0
        whole = pa.concat_arrays(whole.chunks)
    codes = np.asarray(whole.indices.fill_null(-1)).astype(np.int64)
    there = np.bincount(codes + 1, minlength=1)[1:]
    return codes, int((there > 0).sum())


def _count(values: pa.ChunkedArray) -> int:
    """Return how many distinct values there are, null apart; sorted, which numbers are quick at."""
    kind = values.type
    if pa.types.is_null(kind):
        return 0
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not is_number or pa.types.is_float16(kind):
        return int(pc.count_distinct(values, mode="only_valid").as_py())
    numbers = values.drop_null() if values.null_count else values
    found = numbers.to_numpy()
    if found.dtype.kind == "f":  # as bits, which sort as whole numbers do
        found = (found + 0.0).view(f"i{found.dtype.itemsize}")
    return len(distinct(found))
