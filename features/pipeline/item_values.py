"""The values of a column of items as whole numbers: what rules count and compare.

Shape letters: N items of a catalogue, B requests, W items of a request.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.data.batch import Jagged
from recsys.features.tables.ledger import is_list, is_text
from recsys.features.tables.plain_values import plain

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ItemValues:
    """The values of one column of N items, each value as a code 0..num_codes-1.

    codes: N + 1 rows of the distinct codes of each item, ascending. The last row is empty: it is
    that of the item -1, which is none. single (N + 1,): the code of each item, -1 without a value;
    None where an item has several.
    """

    codes: Jagged
    num_codes: int
    single: Rows | None

    @classmethod
    def of(cls, values: pa.Array) -> "ItemValues | None":
        """Return the values of a column (N,); None where they are of another type than these.

        Text, whole numbers, booleans, and lists of them. A null is no value, within a list neither.
        """
        owners, values = np.arange(size := len(values)), plain(values)
        if is_list(values.type):
            owners, values = (
                np.asarray(pc.list_parent_indices(values)),
                plain(pc.list_flatten(values)),
            )
        if not _is_countable(values.type):
            return None
        known = ~np.asarray(values.is_null())
        if not known.any():
            owners, codes, count = np.zeros(0, np.int64), np.zeros(0, np.int64), 1
        else:
            encoded = values.drop_null().dictionary_encode()
            owners, count = owners[known].astype(np.int64), len(encoded.dictionary)
            codes = np.asarray(encoded.indices, np.int64)
        owners, codes = np.divmod(distinct(owners * count + codes), count)
        lengths = np.bincount(owners, minlength=size + 1)
        single = None
        if lengths.max() <= 1:
            single = np.full(size + 1, -1)
            single[owners] = codes
        return cls(Jagged.of_lengths(codes, lengths), count, single)

    def of_rows(self, rows: Rows) -> Jagged:
        """Return the codes of items, -1 for none, (M,), as M rows."""
        return self.codes.take(torch.from_numpy(rows))


def ranks_among_equals(codes: Rows) -> Rows:
    """Return how many codes (B, W) before each of a request are equal to it, (B, W).

    Those below 0 are equal to none.
    """
    ranks = np.zeros(codes.size, np.int64)
    at = np.flatnonzero(codes.reshape(-1) >= 0)
    keys = (codes + np.arange(len(codes))[:, None] * (codes.max(initial=0) + 1)).reshape(-1)[at]
    order = np.argsort(keys, kind="stable")
    ordered, numbers = keys[order], np.arange(len(keys))
    is_first = np.ones(len(keys), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    ranks[at[order]] = numbers - np.maximum.accumulate(np.where(is_first, numbers, 0))
    return ranks.reshape(codes.shape)


def _is_countable(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        is_text(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind)
    )
