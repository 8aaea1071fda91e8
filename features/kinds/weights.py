"""Weights of the values of a row: a list column of non-negative numbers next to the values'."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from recsys.core.errors import DataError, Row
from recsys.features.kinds.feature import Integers
from recsys.features.kinds.number_lists import ExpectedList, float_lists
from recsys.features.kinds.sparse import lengths_of, one_array
from recsys.features.tables.ledger import Cells
from recsys.features.tables.sources import Policies

_REMEDY = "give each value of the row a weight, or leave both cells empty"


@dataclass(frozen=True)
class WeightReader:
    """Converts the column of the weights of `feature`."""

    feature: str

    priority: ClassVar[int] = 6

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return lists of numbers, large_list<float32>; a negative weight goes to the ledger."""
        remedy = f"name a column of lists of numbers as the weights of feature '{self.feature}'"
        what = "a list of weights"
        words = ExpectedList(what, what, what, remedy, remedy)
        lists = float_lists(cells, words)
        rows = np.repeat(np.arange(len(lists)), lengths_of(lists))
        weights = np.asarray(lists.flatten().fill_null(np.nan))
        for wrong, reason, remedy in (
            (weights < 0, "a weight is negative", "a weight is zero or more"),
            (
                ~np.isfinite(weights),
                "a weight is null, NaN or infinite",
                "correct it in the source",
            ),
        ):
            bad = np.zeros(len(lists), bool)
            bad[rows[wrong]] = True
            cells.note(bad, reason, remedy)
        return lists


def check_lengths(cells: Cells, weights: pa.Array, lengths: Integers, values_column: str) -> None:
    """Note rows that have not as many weights as values.

    Args:
        cells: the weights' column, for the rows' numbers.
        weights: (N,) converted.
        lengths: (N,) values of each row.
        values_column: name of the column of the values.
    """
    cells.note(
        _lengths(weights) != lengths,
        f"the row has another number of values in '{values_column}' than of weights",
        _REMEDY,
    )


def weights_of(
    column: pa.ChunkedArray, lengths: Integers, name: str, values_column: str
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the weights (T,) of rows with `lengths` (N,) values.

    Raises:
        DataError: a row has not as many; `name` is the column's.
    """
    weights = one_array(column)
    wrong = np.flatnonzero(_lengths(weights) != lengths)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{_lengths(weights)[row]} weights for {lengths[row]} values of column "
            f"'{values_column}'",
            column=name,
            rows=[Row("", row + 1)],
            num_rows=len(wrong),
            remedy=_REMEDY,
        )
    if pa.types.is_null(weights.type):
        return np.zeros(0, np.float32)
    found = np.asarray(weights.cast(pa.large_list(pa.float32())).flatten(), np.float32)
    if not (np.isfinite(found) & (found >= 0)).all():
        raise DataError(
            "holds a weight that is negative, null or infinite",
            column=name,
            remedy="a weight is zero or more",
        )
    return found


def _lengths(weights: pa.Array) -> Integers:
    if pa.types.is_null(weights.type):
        return np.zeros(len(weights), np.int64)
    return lengths_of(weights)
