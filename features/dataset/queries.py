"""Evaluation queries: the users, their earlier items, and the items they interacted with next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct, is_among
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.features.dataset.dataset import Dataset, are_had
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables

with on_first_use():
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """The users, their earlier items, and the items they interacted with next.

    users (Q,) int64 user rows, ascending. block: Q rows of user and context features; the context
    is that of the user's first held-out event, which a request would carry. history: the last
    events before the part, for the model; seen: those of all by which an item is had. relevant: the
    distinct items of the part that are asked for, without those in `seen` where seen items are
    filtered. A model of sessions has
    queries of another shape: `recsys.features.dataset.session_queries`.
    """

    users: NDArray[np.int64]
    block: FeatureBlock
    history: Jagged | History
    seen: Jagged
    relevant: Jagged

    def __len__(self) -> int:
        return len(self.users)

    @property
    def history_items(self) -> Jagged:
        """The item rows of `history`."""
        return self.history.items if isinstance(self.history, History) else self.history

    def take(self, rows: Tensor) -> Queries:
        """Return the queries `rows` (M,) int64 in that order, repeats allowed."""
        return Queries(
            users=self.users[rows.numpy()],
            block=self.block.take(rows),
            history=self.history.take(rows),
            seen=self.seen.take(rows),
            relevant=self.relevant.take(rows),
        )


def build_queries(
    data: Dataset,
    part: int,
    *,
    history_length: int,
    filter_seen: bool,
    limit: int,
    seed: int,
) -> Queries:
    """Return the queries of `part` (validation or test), at most `limit` users drawn by `seed`.

    Users all of whose held-out items were seen before have nothing to hit and are left out.
    """
    earlier = (TRAIN,) if part == VALIDATION else (TRAIN, VALIDATION)
    assert part in (VALIDATION, TEST)
    events = data.tables.events
    before, had, during = data.histories(earlier), data.had(earlier), data.asked((part,))
    relevant = relevant_items(during.last(np.arange(data.num_users)), had, filter_seen, data)
    users = np.flatnonzero(relevant.lengths().numpy() > 0)
    users = drawn_users(users, limit, seed)
    held_out = data.targets_of((part,))
    first = held_out[np.searchsorted(events.user_row[held_out], users)]
    rows = torch.from_numpy(users)
    return Queries(
        users=users,
        block=data.users.take(rows).beside(data.context.take(torch.from_numpy(first))),
        history=before.last(users, history_length),
        seen=had.last(users),
        relevant=relevant.take(rows),
    )


def drawn_users(users: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Return the users, at most `limit` of them, ascending."""
    if len(users) <= limit:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, limit, replace=False))


def users_to_ask(
    schema: Schema,
    tables: Tables,
    parts: NDArray[np.int8],
    part: int,
    *,
    filter_seen: bool,
    passes: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the users of the queries of `build_queries`, before any are drawn.

    It takes no encoded data.

    Args:
        schema: of the tables.
        tables: of the log.
        parts: (E,) the part of each event.
        part: of the queries.
        filter_seen: whether items that were seen before do not count.
        passes: (n_items,) which items count; None: all.
    """
    events, num_items = tables.events, tables.items.num_rows
    pairs = events.user_row * np.int64(num_items) + events.item_row
    wanted = parts == part
    if events.target is not None:
        wanted &= events.target
    if passes is not None:
        wanted &= passes[events.item_row]
    found = distinct(pairs[wanted])
    if filter_seen:
        had = (parts < part) & are_had(schema, events)
        found = found[~is_among(found, pairs[had])]
    return distinct(found // num_items)


def relevant_items(later_items: Jagged, had: Histories, filter_seen: bool, data: Dataset) -> Jagged:
    """Return the distinct items of each row, without those of `had` where asked."""
    num_items = data.num_items
    pairs = distinct(_pairs(later_items, num_items))
    if filter_seen:
        seen = _pairs(had.last(np.arange(data.num_users)), num_items)
        pairs = pairs[~is_among(pairs, seen)]
    users, items = np.divmod(pairs, num_items)
    offsets = np.searchsorted(users, np.arange(data.num_users + 1))
    return Jagged(torch.from_numpy(items), torch.from_numpy(offsets))


def _pairs(jagged: Jagged, num_items: int) -> NDArray[np.int64]:
    users = np.repeat(np.arange(len(jagged)), jagged.lengths().numpy())
    return np.asarray(users * num_items + jagged.values.numpy())
