"""Evaluation queries: the users, their earlier items, and the items they interacted with next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.codes import whole_runs
from recsys.core.distinct import distinct, is_among
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, History, Jagged
from recsys.features.dataset.dataset import Dataset, are_had
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables

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
    assert part in (VALIDATION, TEST)
    relevant = relevant_items(data, part, filter_seen=filter_seen)
    users = np.flatnonzero(relevant.lengths().numpy() > 0)
    users = drawn_users(users, limit, seed)
    held_out = data.targets_of((part,))
    first = held_out[np.searchsorted(data.tables.events.user_row[held_out], users)]
    rows = torch.from_numpy(users)
    before, had = earlier_of(data, users, part)
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
    wanted = parts == part
    if events.target is not None:
        wanted &= events.target
    if passes is not None:
        wanted &= passes[events.item_row]
    had = (parts < part) & are_had(schema, events) if filter_seen else None
    return distinct(new_pairs(events, num_items, wanted, had) // num_items)


def new_pairs(
    events: Events, num_items: int, wanted: NDArray[np.bool_], had: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Return the pairs of the events `wanted` (E,) without those of the events `had` (E,).

    Each is user_row * num_items + item_row, once, ascending; had: None: nothing was. Users are
    worked on a few at a time, as pairs of all events would take more memory than the events.
    """
    found = [np.zeros(0, np.int64)]
    for rows in whole_runs(events.user_row):
        pairs = events.user_row[rows] * np.int64(num_items) + events.item_row[rows]
        new = distinct(pairs[wanted[rows]])
        found.append(new if had is None else new[~is_among(new, pairs[had[rows]])])
    return np.concatenate(found)


def relevant_items(data: Dataset, part: int, *, filter_seen: bool) -> Jagged:
    """Return the distinct items of each user in `part`, without those had before where asked."""
    events = data.tables.events
    wanted = data.part == part
    if events.target is not None:
        wanted &= events.target
    had = (data.part < part) & are_had(data.schema, events) if filter_seen else None
    users, items = np.divmod(new_pairs(events, data.num_items, wanted, had), data.num_items)
    offsets = np.searchsorted(users, np.arange(data.num_users + 1))
    return Jagged(torch.from_numpy(items), torch.from_numpy(offsets))


def earlier_of(data: Dataset, users: NDArray[np.int64], part: int) -> tuple[Histories, Histories]:
    """Return the events of earlier parts of `users` alone: all, and those by which items are had.

    Other users have none there.
    """
    events = data.tables.events
    asked = np.zeros(data.num_users, bool)
    asked[users] = True
    chosen = np.flatnonzero((data.part < part) & asked[events.user_row])
    before = data.histories_of(chosen)
    if data.schema.interactions.events is None:  # all are had
        return before, before
    return before, data.histories_of(chosen[are_had(data.schema, events)[chosen]])
