"""One value a row: an id, a brand, a country."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.batch import FeatureLayout
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.feature import Encoded, Fit, Fitted, Integers
from recsys.features.kinds.sparse import (
    SparseFeature,
    arrow_type,
    check_family,
    expressed_hashes,
    family_of,
    hashes_of,
    settled,
)
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.kinds.whole_numbers import (
    are_counts,
    come_often,
    names_amounts,
    names_codes,
)
from recsys.features.propose.profile import ColumnProfile
from recsys.features.tables.ledger import Cells, is_list, is_text
from recsys.features.tables.sources import Policies

_FEW = 64
_RARE = 10
"""Rows below which `min_count` is worth a word."""


class CategoricalFeature(SparseFeature):
    """One value a row: an id, a brand, a country."""

    kind: Literal["categorical"] = "categorical"

    priority: ClassVar[int] = 0
    proposal_order: ClassVar[int] = 3
    is_key: ClassVar[bool] = True
    is_category: ClassVar[bool] = True
    decides_type: ClassVar[bool] = True

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return text as a dictionary, whole numbers as int64 (uint64), booleans as they are."""
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
                f"declare feature '{self.name}' multi_categorical (vector for numbers)",
            )
        cells.refuse(
            f"{kind} where a category is expected",
            f"declare feature '{self.name}' timestamp or numeric, or cast the column to text",
        )

    def fit(self, columns: Sequence[pa.ChunkedArray], reference_time: int) -> Fit:
        """Return the family of its values."""
        return family_of(columns, self)

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """One single-valued feature."""
        return FeatureLayout(((self.name, settled(self.multiplicity)),), (), ())

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return the hash of each value."""
        (column,) = columns
        check_family(column, self, fitted)
        return Encoded(single=[hashes_of(column, self, fitted)])

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """The hash of each value."""
        hashes = ops.category(self.source_column, fitted.families[self.name])
        return Expressed(single=[expressed_hashes(ops, hashes, self, fitted)])

    def rows_and_values(self, column: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
        """Return the column's own values."""
        return np.arange(len(column)), column

    def group_names(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the values themselves."""
        return column

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """The type of the values fitted."""
        return {self.source_column: arrow_type(self, fitted)}

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Booleans, text whose values come again, codes, and whole numbers that are few."""
        found = _proposed(column)
        if not look.of_clicks or (found is not None and not found.kind):
            return found
        if are_counts(column) or (found is None and not come_often(column)):
            return None
        return _of_clicks(column)


def proposed_id(count: int) -> Suggestion:
    """Return the feature that `recsys init` makes of a key with `count` values."""
    return _suggestion(f"{count:,} ids", count, multiplicity=2)


def _suggestion(comment: str, values: int, **options: object) -> Suggestion:
    return Suggestion("categorical", options, comment, values)


def _proposed(column: ColumnProfile) -> Suggestion | None:
    if column.type == "boolean":
        return _suggestion("true or false", 2)
    if column.type == "string":
        if column.is_unique:
            return _no_more_than_the_id()
        return _suggestion(f"{column.distinct:,} values", column.distinct)
    if not column.is_whole:
        return None
    is_id = names_codes(column)
    if column.is_unique and column.type == "integer" and is_id:
        return _no_more_than_the_id()
    is_number = names_amounts(column) and column.distinct > 20
    if is_id or (column.distinct <= _FEW and not is_number):
        return _suggestion(f"{column.distinct:,} values", column.distinct)
    return None


def _no_more_than_the_id() -> Suggestion:
    return Suggestion("", {}, "another value in every row: says no more than the id")


def _of_clicks(column: ColumnProfile) -> Suggestion:
    """Return what a ranker's log may say of its codes."""
    if not _comes_again(column):
        return Suggestion("", {}, "hardly a value of its last rows occurs in earlier ones")
    comment = f"{column.distinct:,} values"
    counts = np.asarray(pc.value_counts(column.known).field("counts"))
    rare = int((counts < _RARE).sum())
    if rare > max(_FEW, len(counts) / 2):
        comment += f"; min_count: {_RARE} would make the {rare:,} rare ones one"
    return Suggestion(
        "categorical",
        {"multiplicity": "auto"},
        comment,
        column.distinct,
        maybe_amounts=column.is_whole and column.distinct > _FEW,
    )


def _comes_again(column: ColumnProfile) -> bool:
    """Whether more than a tenth of the last rows have a value that occurs in earlier ones."""
    if column.type == "boolean":
        return True
    values = column.known
    cut = len(values) - max(len(values) // 10, 1)
    again = pc.is_in(values[cut:], values[:cut])
    return bool(pc.mean(again.cast(pa.float64())).as_py() > 0.1)


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
