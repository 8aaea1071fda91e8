"""The columns that features read, out of a table."""

import pyarrow as pa

from recsys.core.errors import DataError
from recsys.core.strict import nearest
from recsys.features.kinds.feature import Feature


def columns_of(
    table: pa.Table, feature: Feature, *, absent_is_null: bool = False
) -> list[pa.ChunkedArray]:
    """Return the columns that `feature` reads, in its order.

    Raises:
        DataError: the table lacks one that is not to be of nulls; the nearest column is named.
    """
    return [
        pa.chunked_array([pa.nulls(table.num_rows)])
        if absent_is_null and name not in table.column_names
        else _column(table, name, feature)
        for name in feature.columns
    ]


def _column(table: pa.Table, name: str, feature: Feature) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(
            f"column '{name}' of feature '{feature.name}' is missing"
            f"{nearest(name, table.column_names)}",
            remedy=f"the table has {', '.join(table.column_names)}",
        )
    return table.column(name)
