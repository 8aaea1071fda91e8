"""A list of floats a row: the embedding of a plot or an image."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from recsys.core.errors import DataError, Row
from recsys.data.batch import FeatureLayout
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.feature import Encoded, Feature, Fitted, is_nan
from recsys.features.kinds.number_lists import ExpectedList, float_lists
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.profile import ColumnProfile
from recsys.features.tables.ledger import Cells
from recsys.features.tables.sources import Policies


class VectorFeature(Feature):
    """A list of `dim` floats a row (the embedding of a plot or an image)."""

    kind: Literal["vector"] = "vector"
    dim: Annotated[int, Field(ge=1)]
    """Numbers of a cell."""

    priority: ClassVar[int] = 3

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return large_list<float32>; a vector that holds an infinity follows the policy."""
        whole = f"a vector of {self.dim} numbers"
        lists = float_lists(
            cells,
            ExpectedList(
                whole,
                "a vector",
                "a vector of numbers",
                "declare numeric",
                "declare multi_categorical",
            ),
        )
        lengths = np.asarray(pc.list_value_length(lists).fill_null(-1))
        wrong = (lengths >= 0) & (lengths != self.dim)
        seen = sorted({int(length) for length in lengths[wrong]})[:3]
        cells.note(
            wrong,
            f"a vector of {', '.join(map(str, seen))} numbers where dim: {self.dim} is declared",
            "correct the source or the feature's dim",
            show=False,
        )
        infinite = _check_numbers(cells, lists, lengths, policies)
        if not infinite.any():
            return lists
        return pc.if_else(pa.array(infinite), pa.scalar(None, lists.type), lists)

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """Its numbers, and whether it is null."""
        numbers = (f"{self.name}.{i}" for i in range(self.dim))
        return FeatureLayout((), (), (*numbers, f"{self.name}.null"))

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return its numbers as they are, 0 where null."""
        vectors = self._vectors(columns[0])
        return Encoded(dense=[*np.nan_to_num(vectors).T, is_nan(vectors[:, 0])])

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """Its numbers as they are, 0 where null."""
        vectors, null = ops.vector(self.source_column, self.dim)
        return Expressed(dense=[vectors, ops.float32(null)])

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """A list of numbers."""
        return {self.source_column: pa.list_(pa.float64())}

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Lists of floats of one length."""
        if column.type != "list" or not pa.types.is_floating(column.values.type.value_type):
            return None
        lengths = np.asarray(pc.list_value_length(column.known))
        width = int(lengths[0])
        if (lengths == width).all() and width > 0:
            return Suggestion("vector", {"dim": width})
        return Suggestion(
            "",
            {},
            "lists of numbers of unlike length",
            unsure=f"'{column.name}' holds lists of floats of {lengths.min()} to {lengths.max()} "
            "numbers; a vector feature needs one length, so it was left out",
        )

    def shown(self, value: Any) -> str:
        """Say how long it is."""
        return f"{self.dim} numbers"

    def _vectors(self, column: pa.ChunkedArray) -> NDArray[np.float32]:
        """Return (N, dim) float32, NaN rows where null."""
        out = np.full((len(column), self.dim), np.nan, np.float32)
        if pa.types.is_null(column.type):
            return out
        lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        lists = lists.cast(pa.large_list(pa.float32()))
        lengths = np.asarray(pc.list_value_length(lists).fill_null(-1))
        wrong = np.flatnonzero((lengths >= 0) & (lengths != self.dim))
        if len(wrong):
            raise DataError(
                f"a vector of {lengths[wrong[0]]} numbers where dim: {self.dim} is declared",
                column=self.source_column,
                rows=[Row("", int(wrong[0]) + 1)],
                num_rows=len(wrong),
            )
        out[lengths >= 0] = np.asarray(lists.flatten()).reshape(-1, self.dim)
        return out


def _check_numbers(
    cells: Cells, lists: pa.Array, lengths: NDArray[np.int64], policies: Policies
) -> NDArray[np.bool_]:
    """Note vectors that hold null or an infinity; return which hold an infinity, (N,)."""
    owner = np.repeat(np.arange(len(lists)), np.maximum(lengths, 0))
    flat = np.asarray(lists.flatten().fill_null(np.nan))
    infinite, unknown = np.zeros(len(lists), bool), np.zeros(len(lists), bool)
    infinite[owner[np.isinf(flat)]] = True
    unknown[owner[np.isnan(flat)]] = True
    cells.note(
        unknown, "null or NaN inside a vector", "make the whole cell null, or fill it", show=False
    )
    cells.note(
        infinite,
        "a vector holds an infinite number",
        "correct the source",
        rule=policies.rule("infinite_numbers", "null"),
        show=False,
    )
    return infinite
