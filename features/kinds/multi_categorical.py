"""Several values a row: genres, tags, ingredients, each with a weight if wanted."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from recsys.core.errors import DataError
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureLayout, Jagged
from recsys.data.feature_options import Pooling
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.feature import Encoded, Fit, Fitted, Integers, Reader
from recsys.features.kinds.sparse import (
    SparseFeature,
    arrow_type,
    check_family,
    expressed_hashes,
    family_of,
    filled,
    hashes_of,
    lengths_of,
    one_array,
    rows_and_values_of,
    settled,
    split_text,
)
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.kinds.weights import WeightReader, check_lengths, weights_of
from recsys.features.propose.profile import ColumnProfile
from recsys.features.tables.ledger import Cells, is_list, is_text
from recsys.features.tables.sources import Policies

with on_first_use():
    import torch

_SEPARATORS = ("|", ";", ",")


class MultiCategoricalFeature(SparseFeature):
    """Several values a row: an Arrow list, or text cut at `separator`; pooled to one vector."""

    kind: Literal["multi_categorical"] = "multi_categorical"
    separator: str | None = None
    """What separates the values of a cell of text; null: cells are lists."""
    pooling: Pooling = "mean"
    """How the vectors of several values become one."""
    weights: str | None = None
    """A list column of non-negative numbers, as long in each row as the values': how much each
    counts in the pooling. A row without values has an empty list or null."""

    priority: ClassVar[int] = 1
    proposal_order: ClassVar[int] = 1
    is_category: ClassVar[bool] = True
    has_several: ClassVar[bool] = True

    @model_validator(mode="after")
    def _weights_are_another_column(self) -> Self:
        if self.weights == self.source_column:
            raise ValueError(
                f"feature '{self.name}': the column '{self.weights}' holds the values, not their "
                "weights: name another column"
            )
        return self

    def readers(self) -> dict[str, Reader]:
        """Return the readers of values and weights."""
        own = super().readers()
        return own if self.weights is None else {**own, self.weights: WeightReader(self.name)}

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return text as it is where it is to be cut, or lists of text, whole numbers, booleans."""
        values, kind = cells.values, cells.values.type
        if is_text(kind):
            if self.separator is None:
                cells.refuse(
                    "text where a list is expected",
                    f"give the multi_categorical feature '{self.name}' a separator, "
                    'as in separator: "|"',
                )
            return values
        if not is_list(kind):
            cells.refuse(
                f"one {kind} where a list is expected",
                f"declare feature '{self.name}' categorical",
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
            f"declare feature '{self.name}' as vector, or cast the values to text",
        )

    def check_rows(self, cell: Callable[[str], Cells], columns: Mapping[str, pa.Array]) -> None:
        """Note rows that have not as many weights as values."""
        if self.weights is None:
            return
        lengths = lengths_of(self._lists(columns[self.source_column]))
        check_lengths(cell(self.weights), columns[self.weights], lengths, self.source_column)

    def fit(self, columns: Sequence[pa.ChunkedArray], reference_time: int) -> Fit:
        """Return the family of its values."""
        return family_of(columns, self)

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """One multi-valued feature."""
        pair = (self.name, settled(self.multiplicity))
        return FeatureLayout((), (pair,), (), (self.pooling,))

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return the hashes of each row's values, with their weights where declared."""
        lists = self._lists(columns[0])
        check_family(columns[0], self, fitted)
        lengths = lengths_of(lists)
        found = filled(hashes_of(lists.flatten(), self, fitted), lengths)
        if self.weights is not None:
            weights = weights_of(columns[1], lengths, self.weights, self.source_column)
            starts = np.cumsum(lengths) - lengths
            weights = np.insert(weights, starts[lengths == 0], 1.0)
            found = Jagged(found.values, found.offsets, torch.from_numpy(weights))
        return Encoded(multi=[found])

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """The hashes of each row's values, with their weights where declared."""
        found = ops.categories(
            self.source_column,
            fitted.families[self.name],
            cut=self.separator or "",
            weights=self.weights,
        )
        values = expressed_hashes(ops, found.values, self, fitted)
        return Expressed(multi=[found._replace(values=values)])

    def rows_and_values(self, column: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
        """Return the values of all lists."""
        return rows_and_values_of(self._lists(column))

    def group_names(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the first value of each row."""
        lists = self._lists(column)
        # An empty list has no first value: make it null.
        return pc.list_element(
            pc.if_else(pc.greater(pc.list_value_length(lists), 0), lists, None), 0
        )

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """Lists, or text to be cut; the weights are lists of numbers."""
        kind = arrow_type(self, fitted)
        found = {self.source_column: pa.list_(kind) if self.separator is None else kind}
        return found if self.weights is None else {**found, self.weights: pa.list_(pa.float64())}

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Lists of text or whole numbers, and text with a sign between values that come again."""
        found = _of_list(column) if column.type == "list" else _of_text(column)
        if found is None or not look.of_clicks:
            return found
        options = {"multiplicity": "auto", **found.options}
        return Suggestion(found.kind, options, f"{found.values:,} values", found.values)

    def _lists(self, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return a large_list array: an Arrow list as it is, text cut at the separator."""
        values = one_array(column)
        if pa.types.is_null(values.type):
            return pa.nulls(len(values), pa.large_list(pa.large_string()))
        if is_text(values.type):
            return self._parts(values)
        kind = values.type.value_type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        return values.cast(pa.large_list(kind))

    def _parts(self, values: pa.Array) -> pa.Array:
        if self.separator is None:
            raise DataError(
                "text where a list is expected",
                column=self.source_column,
                remedy=f"give the multi_categorical feature '{self.name}' a separator, as in "
                'separator: "|"',
            )
        lists = split_text(values.cast(pa.large_string()), self.separator)
        trimmed = pc.utf8_trim_whitespace(lists.values)
        return pa.LargeListArray.from_arrays(lists.offsets, trimmed, mask=lists.is_null())


def _of_list(column: ColumnProfile) -> Suggestion | None:
    inner = column.values.type.value_type
    if pa.types.is_dictionary(inner):
        inner = inner.value_type
    if pa.types.is_integer(inner) or is_text(inner):
        return Suggestion("multi_categorical", {}, "", column.distinct)
    return None


def _of_text(column: ColumnProfile) -> Suggestion | None:
    """Return the feature whose separator parts text into values that come again."""
    for sign in _SEPARATORS if column.type == "string" else ():
        has = pc.mean(pc.match_substring(column.known, sign).cast(pa.float64())).as_py()
        if has < 0.1:
            continue
        parts = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(column.known, sign)))
        distinct = pc.unique(parts)
        spaces = pc.mean(pc.count_substring(distinct, " ")).as_py()
        if len(parts) >= 3 * len(distinct) and spaces < 3 and "" not in distinct.to_pylist():
            return Suggestion("multi_categorical", {"separator": sign}, "", len(distinct))
    return None
