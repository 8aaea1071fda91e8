"""Requests: tables of users to recommend for, each with a history, as batch scoring reads them.

A request table has the user key, `history` (list of item ids, oldest first), optionally `seen`
(items to leave out; the history where absent), and any user attribute or context column; an
absent attribute is null.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.encoder import FeatureEncoder
from features.histories import Histories
from features.tables import Tables
from recsys.batch import FeatureBlock, Jagged
from recsys.errors import DataError
from recsys.schema import Schema
from recsys.strict import nearest

HISTORY, SEEN = "history", "seen"


@dataclass(frozen=True)
class Requests:
    """B requests, encoded.

    num_events (B,) int64, items in the whole history, of which the model may see the last alone.
    unknown_items: ids in histories that the catalogue lacks.
    """

    user_ids: pa.Array
    block: FeatureBlock
    history: Jagged
    seen: Jagged
    num_events: Tensor
    unknown_items: int

    def __len__(self) -> int:
        return len(self.user_ids)


def request_table(
    schema: Schema, tables: Tables, histories: Histories, users: NDArray[np.int64]
) -> pa.Table:
    """Return the requests of user rows `users` (B,): key, attributes, whole history."""
    seen = histories.last(users)
    ids = tables.items.column(schema.item_key).combine_chunks()
    values = ids.take(pa.array(seen.values.numpy()))
    offsets = pa.array(seen.offsets.numpy())
    lists = pa.LargeListArray.from_arrays(offsets, values)
    return _plain(tables.users.take(pa.array(users))).append_column(HISTORY, lists)


def ids_sha256(item_ids: pa.Array) -> str:
    """Return a hash of the catalogue's ids in order: which item each row of an index is."""
    digest = hashlib.sha256(str(item_ids.type).encode())
    for value in item_ids.to_pylist():
        digest.update(f"{value}\n".encode())
    return digest.hexdigest()


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as their values: requests go to whoever serves the model."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def encode_requests(
    encoder: FeatureEncoder, item_ids: pa.Array, table: pa.Table, *, history_length: int
) -> Requests:
    """Return `table` as tensors; `item_ids` (n_items,) is the model's catalogue, ascending.

    Raises:
        DataError: the user key or the history is missing, null or of the wrong type.
    """
    schema = encoder.schema
    key = schema.user_key
    for name in (key, HISTORY):
        if name not in table.column_names:
            raise DataError(
                f"requests lack the column '{name}'{nearest(name, table.column_names)}; they need "
                f"'{key}' and '{HISTORY}' (a list of item ids, oldest first, empty for a new user)"
            )
    users = table.column(key).combine_chunks()
    if users.null_count:
        row = int(np.flatnonzero(np.asarray(users.is_null()))[0])
        raise DataError(f"requests, column '{key}', row {row + 1}: a null user id")
    history, missing = _item_rows(table, HISTORY, item_ids)
    seen = _item_rows(table, SEEN, item_ids)[0] if SEEN in table.column_names else history
    users_block = encoder.encode("users", _with_absent(schema, table))
    block = users_block.beside(encoder.encode("interactions", table))
    last, num_events = _last(history, history_length), history.lengths()
    return Requests(users, block, last, seen, num_events, missing)


def _with_absent(schema: Schema, table: pa.Table) -> pa.Table:
    """Attributes that the requests lack are null."""
    for feature in schema.features_of("users"):
        if feature.source_column not in table.column_names:
            table = table.append_column(feature.source_column, pa.nulls(table.num_rows))
    return table


def _item_rows(table: pa.Table, name: str, item_ids: pa.Array) -> tuple[Jagged, int]:
    """Return lists of item ids as catalogue rows, and how many ids the catalogue lacks."""
    lists = table.column(name).combine_chunks()
    kind = lists.type
    if pa.types.is_null(kind):
        lists, kind = lists.cast(pa.large_list(item_ids.type)), pa.large_list(item_ids.type)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"requests, column '{name}' is {kind}; it must be a list of item ids")
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
    values = lists.flatten()
    if not pa.types.is_null(values.type) and _is_text(values.type) != _is_text(item_ids.type):
        raise DataError(
            f"requests, column '{name}' holds {values.type} ids, the catalogue {item_ids.type} ids"
        )
    rows = np.asarray(pc.index_in(values.cast(item_ids.type), item_ids).fill_null(-1), np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    known = rows >= 0
    counts = np.bincount(owner[known], minlength=len(lengths))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Jagged(torch.from_numpy(rows[known]), torch.from_numpy(offsets)), int((~known).sum())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _last(jagged: Jagged, length: int) -> Jagged:
    """Keep the last `length` values of each row."""
    lengths = jagged.lengths()
    back = torch.repeat_interleave(jagged.offsets[1:], lengths) - torch.arange(len(jagged.values))
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths.clamp(max=length), 0, out=offsets[1:])
    return Jagged(jagged.values[back <= length], offsets)
