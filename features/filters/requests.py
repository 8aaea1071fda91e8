"""What requests say of their own lists: columns `where`, `exclude` and `allow` of their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.kinds.convert import columns_of
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import grouped, item_rows
from recsys.features.schema import Schema
from recsys.features.tables.ledger import is_text

WHERE, EXCLUDE, ALLOW = "where", "exclude", "allow"


@dataclass(frozen=True)
class OwnFilters:
    """What Q requests ask for: predicates (null: none) and Q rows of item rows.

    is_limited: (Q,) bool, which requests have a list of what is allowed. unknown: ids in the lists
    that the catalogue lacks, the first of them.
    """

    where: Sequence[str | None]
    exclude: Jagged
    allow: Jagged
    is_limited: Tensor
    unknown: int = 0
    first_unknown: Any = None

    @property
    def ask_nothing(self) -> bool:
        """Whether no request has a filter."""
        has_lists = len(self.exclude.values) or bool(self.is_limited.any())
        return not has_lists and all(one is None for one in self.where)


def filter_columns(schema: Schema) -> list[str]:
    """Return the columns of requests that filter; those that the model reads are no filters."""
    read = columns_of((*schema.features_of("users"), *schema.features_of("interactions")))
    return [name for name in (WHERE, EXCLUDE, ALLOW) if name not in (*read, schema.user_key)]


def own_filters(
    schema: Schema, table: pa.Table, item_ids: pa.Array, origin: RequestOrigin
) -> OwnFilters:
    """Return what the requests of a table ask for.

    Raises:
        DataError: a column is no text or no list of item ids.
    """
    names, count = filter_columns(schema), table.num_rows
    there = [name for name in names if name in table.column_names]
    texts: list[str | None] = [None] * count
    if WHERE in there:
        texts = _texts(table.column(WHERE), origin)
    lists = {}
    unknown, first = 0, None
    for name in (EXCLUDE, ALLOW):
        if name not in there:
            lists[name] = Jagged.of_lengths(np.zeros(0, np.int64), np.zeros(count, np.int64))
            continue
        rows, owner, values = item_rows(table, name, item_ids, origin, schema)
        known = rows >= 0
        missing = np.flatnonzero(~known)
        first = values[int(missing[0])].as_py() if len(missing) and not unknown else first
        unknown += len(missing)
        lists[name] = grouped(rows[known], owner[known], count)
    limited = np.zeros(count, bool)
    if ALLOW in there:
        limited = np.asarray(table.column(ALLOW).is_valid())
    return OwnFilters(
        texts, lists[EXCLUDE], lists[ALLOW], torch.from_numpy(limited.copy()), unknown, first
    )


def _texts(column: pa.ChunkedArray, origin: RequestOrigin) -> list[str | None]:
    kind = column.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not is_text(kind) and not pa.types.is_null(kind):
        raise origin.error(
            f"{kind}, where a predicate over the items is expected",
            WHERE,
            remedy="write a column of text, as in price < 50, null for no filter",
        )
    values: list[str | None] = column.to_pylist()
    return values
