"""Pairs of a user and an item, with whether the user interacted with it in a held-out part.

What a probability of an interaction is fitted and evaluated on: every user known before the part,
also those without interactions in it, with every item of a set, or a weighted sample of such
pairs.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct, is_among
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.tables.checked import Tables

with on_first_use():
    import torch

MOST_PAIRS = 1_000_000
"""More pairs than this are sampled."""


@dataclass(frozen=True)
class PairSample:
    """Q users as requests without context, and P pairs of them with items.

    block: Q rows of user features. history: the last events before the part. num_events (Q,)
    int64, how many there are in all. query (P,) int64 ascending; item_row (P,) int64; label (P,)
    float32, whether the user interacted with it in the part; weight (P,) float64, how many pairs it
    stands for.
    """

    block: FeatureBlock
    history: Jagged
    num_events: NDArray[np.int64]
    query: NDArray[np.int64]
    item_row: NDArray[np.int64]
    label: NDArray[np.float32]
    weight: NDArray[np.float64]

    @property
    def num_positive(self) -> int:
        """Sampled pairs with an interaction."""
        return int(self.label.sum())


def released_items(data: Dataset, part: int) -> NDArray[np.bool_]:
    """Return which items, (n_items,) bool, have rows in `part` and none before it."""
    events = data.tables.events
    before = np.bincount(events.item_row[data.part < part], minlength=data.num_items)
    during = np.bincount(events.item_row[data.part == part], minlength=data.num_items)
    return (before == 0) & (during > 0)


def sample_pairs(
    data: Dataset,
    part: int,
    items: NDArray[np.bool_],
    *,
    history_length: int,
    filter_seen: bool,
    active_only: bool = False,
    most: int = MOST_PAIRS,
    seed: int = 0,
) -> PairSample:
    """Return pairs of all users with a row before `part` and of `items`.

    Above `most` pairs, half of them are pairs with an interaction (all of these, where they are
    fewer) and the others are drawn uniformly from the rest; weights undo it.

    Args:
        data: tables and parts.
        part: validation or test.
        items: (n_items,) bool.
        history_length: events that the model sees.
        filter_seen: leave out pairs with an interaction before the part.
        active_only: only users with a target in the part.
        most: pairs at most, about.
        seed: of the draw.
    """
    earlier = (TRAIN,) if part == VALIDATION else (TRAIN, VALIDATION)
    before, during = data.histories(earlier), data.asked((part,))
    here = before.lengths() > 0
    if active_only:
        here &= during.lengths() > 0
    users, rows = np.flatnonzero(here), np.flatnonzero(items)
    seen = _keys(data.had(earlier).last(users), data.num_items)
    positive = _keys(during.last(users), data.num_items)
    positive = positive[items[positive % data.num_items]]
    gone = seen[items[seen % data.num_items]] if filter_seen else seen[:0]
    positive = positive[~is_among(positive, gone)]
    if len(users) * len(rows) <= most:
        keys = (np.arange(len(users))[:, None] * data.num_items + rows).ravel()
        keys = keys[~is_among(keys, gone)]
        label, weight = is_among(keys, positive), np.ones(len(keys))
    else:
        keys, label, weight = _sampled(users, rows, data.num_items, positive, gone, most, seed)
    query, item_row = np.divmod(keys, data.num_items)
    absent = data.encoder.encode("interactions", pa.table({"none": pa.nulls(len(users))}))
    return PairSample(
        block=data.users.take(torch.from_numpy(users)).beside(absent),
        history=before.last(users, history_length),
        num_events=before.lengths()[users],
        query=query,
        item_row=item_row,
        label=label.astype(np.float32),
        weight=weight,
    )


def count_pairs(
    tables: Tables,
    parts: NDArray[np.int8],
    part: int,
    items: NDArray[np.bool_],
    *,
    filter_seen: bool,
    active_only: bool = False,
) -> tuple[int, int]:
    """Return how many pairs `sample_pairs` draws from have an interaction, and how many there are.

    It takes no encoded data; the arguments are those of `sample_pairs`.
    """
    events, num_items = tables.events, tables.items.num_rows
    here = np.zeros(tables.users.num_rows, bool)
    here[events.user_row[parts < part]] = True
    if active_only:
        active = np.zeros(len(here), bool)
        active[events.user_row[parts == part]] = True
        here &= active
    counted = here[events.user_row] & items[events.item_row]
    pairs = events.user_row * np.int64(num_items) + events.item_row
    gone = distinct(pairs[counted & (parts < part)]) if filter_seen else pairs[:0]
    positive = distinct(pairs[counted & (parts == part)])
    positive = positive[~is_among(positive, gone)]
    return len(positive), int(here.sum()) * int(items.sum()) - len(gone)


def _sampled(
    users: NDArray[np.int64],
    rows: NDArray[np.int64],
    num_items: int,
    positive: NDArray[np.int64],
    gone: NDArray[np.int64],
    most: int,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return keys, ascending, whether they had an interaction, and their weights."""
    rng = np.random.default_rng(seed)
    own = positive
    if len(positive) > most // 2:
        own = rng.choice(positive, most // 2, replace=False)
    others = most - len(own)
    drawn = rng.integers(0, len(users), others) * num_items + rng.choice(rows, others)
    # A pair may be drawn twice: each draw stands for as many pairs as any other.
    drawn = drawn[~is_among(drawn, positive) & ~is_among(drawn, gone)]
    rest = len(users) * len(rows) - len(positive) - len(gone)
    keys = np.concatenate([own, drawn])
    label = np.arange(len(keys)) < len(own)
    weight = np.where(label, len(positive) / max(len(own), 1), rest / max(len(drawn), 1))
    order = np.argsort(keys, kind="stable")
    return keys[order], label[order], weight[order]


def _keys(lists: Jagged, num_items: int) -> NDArray[np.int64]:
    """Return the distinct pairs (place of the user, item row) as one number each, ascending."""
    users = np.repeat(np.arange(len(lists)), lists.lengths().numpy())
    return distinct(users * num_items + lists.values.numpy())
