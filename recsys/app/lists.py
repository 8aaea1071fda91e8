"""Answers as data frames: a row an item of a list, or a row a vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from recsys.core.errors import DataError, NotFoundError


def long_frame(
    parts: Sequence[pa.Table], user_key: str, item_key: str, item_ids: pa.Array
) -> pd.DataFrame:
    """Return lists (a row a user) as a frame with a row an item, best first within a user.

    Args:
        parts: tables with the user key, `items`, `scores` and perhaps `probabilities`.
        user_key: name of the users' column.
        item_key: name of the items' column.
        item_ids: of the catalogue; gives the type of the items where there is no list.
    """
    if not parts:
        empty = pa.table({user_key: pa.nulls(0), item_key: item_ids[:0]})
        return empty.to_pandas().assign(rank=pd.Series(dtype=int), score=pd.Series(dtype=float))
    table = pa.concat_tables([part.combine_chunks() for part in parts]).combine_chunks()
    lists = table.column("items").combine_chunks()
    lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    users = table.column(user_key).take(pa.array(np.repeat(np.arange(len(lengths)), lengths)))
    columns = {
        user_key: users,
        item_key: lists.flatten(),
        "rank": pa.array(np.arange(lengths.sum()) - np.repeat(starts, lengths) + 1),
        "score": table.column("scores").combine_chunks().flatten(),
    }
    if "probabilities" in table.column_names:
        columns["probability"] = table.column("probabilities").combine_chunks().flatten()
    return pa.table(columns).to_pandas()


def vector_frame(key: str, ids: Sequence[pa.Array], vectors: Sequence[Tensor]) -> pd.DataFrame:
    """Return ids and their vectors, each a NumPy array in a cell of its own."""
    flat = [one for part in ids for one in part.to_pylist()]
    rows = [row for part in vectors for row in part.numpy()]
    return pd.DataFrame({key: flat, "vector": pd.Series(rows, dtype=object)})


def query_frame(
    key: str,
    ids: Sequence[pa.ChunkedArray],
    made: Sequence[tuple[Tensor, Tensor | None]],
    users: Sequence[Any] | None,
) -> pd.DataFrame:
    """Return users and their query vectors, and `repeat_gain` where the model gives some.

    Args:
        key: name of the users' column.
        ids: of the users, part by part.
        made: vectors and gains of each part.
        users: who is wanted, in order; None: all.

    Raises:
        NotFoundError: one is not among them.
    """
    vectors = [one for one, _ in made]
    gains = [gain for _, gain in made if gain is not None]
    if users is not None and made:
        found = pa.chunked_array([chunk for column in ids for chunk in column.chunks])
        at = places_of(found, users)
        ids, vectors = [found.take(at)], [torch.cat(vectors)[torch.tensor(at)]]
        gains = [torch.cat(gains)[torch.tensor(at)]] if gains else []
    frame = vector_frame(key, ids, vectors)
    return frame.assign(repeat_gain=torch.cat(gains).numpy()) if gains else frame


def user_ids(users: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Return ids as an array (N,), of the type `kind` where it is given.

    Raises:
        DataError: they are of several types, or none of that type.
    """
    try:
        ids = pa.array(list(users))
        return ids if kind is None else ids.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        what = "one type" if kind is None else f"type {kind}"
        raise DataError(f"ids of {what} are expected ({reason})", file="users") from None


def of_users(table: pa.Table, users: Sequence[Any], key: str) -> pa.Table:
    """Keep the requests of some users."""
    if key not in table.column_names:
        return table  # the scorer names what is missing
    column = table.column(key)
    wanted = user_ids(users, column.type)
    return table.filter(pc.is_in(column, value_set=wanted))


def rows_of_ids(items: Sequence[Any], known: Mapping[Any, int]) -> Tensor:
    """Return the rows of items (N,), int64; `known`: id -> row, of the whole catalogue.

    Raises:
        NotFoundError: an id is not in the catalogue; the first is named.
    """
    for item in items:
        if item not in known:
            sample = next(iter(known))
            raise NotFoundError(
                f"item {item!r} is not in the catalogue of {len(known):,} items (ids look like "
                f"{sample!r})"
            )
    return torch.tensor([known[item] for item in items], dtype=torch.int64)


def places_of(found: pa.ChunkedArray, users: Sequence[Any]) -> list[int]:
    """Return the place of each user among those found.

    Raises:
        NotFoundError: one is not among them.
    """
    places = pc.index_in(user_ids(users, found.type), found)
    if places.null_count:
        stranger = list(users)[places.is_null().index(True).as_py()]
        raise NotFoundError(f"user {stranger!r} is not among the requests")
    return list(places.to_pylist())
