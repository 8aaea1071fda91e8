"""More candidates for a batch: items that join it, and who must not take them for negatives.

Shape letters: B queries, C candidates, U distinct items of a batch, K items that join.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, Jagged, PairBatch


def columns_of(own_items: Jagged, item_rows_K: Tensor, num_items: int) -> Jagged:
    """Return at which places of `item_rows_K` the items of each row are, B distinct rows.

    Args:
        own_items: B rows of item rows, repeats allowed.
        item_rows_K: (K,) int64, distinct.
        num_items: of the catalogue.
    """
    device, width = item_rows_K.device, max(len(item_rows_K), 1)
    place = torch.full((num_items,), -1, dtype=torch.int64, device=device)
    place[item_rows_K] = torch.arange(len(item_rows_K), device=device)
    column = place[own_items.values]
    there = column >= 0
    pairs = (own_items.owners()[there] * width + column[there]).unique()
    offsets = torch.searchsorted(pairs, torch.arange(len(own_items) + 1, device=device) * width)
    return Jagged(pairs % width, offsets)


def row_by_row(first: Jagged, second: Jagged) -> Jagged:
    """Return each row of `first` with the same row of `second` behind it; weights are dropped."""
    owner = torch.cat([first.owners(), second.owners()])
    order = owner.argsort(stable=True)
    values = torch.cat([first.values, second.values])[order]
    return Jagged(values, first.offsets + second.offsets)


def excluded_also(batch: PairBatch, own_items: Jagged, first: int, num_items: int) -> PairBatch:
    """Return the batch whose queries exclude their users' items from `first` on.

    Args:
        batch: its candidates below `first` are decided already.
        own_items: B rows of item rows, the items of each query's user.
        first: a place among the candidates.
        num_items: of the catalogue.
    """
    later = columns_of(own_items, batch.item_rows[first : batch.num_candidates], num_items)
    later = replace(later, values=later.values + first)
    return replace(batch, not_negative=row_by_row(batch.not_negative, later))


def with_candidates(
    batch: PairBatch, item_rows_K: Tensor, features: Callable[[Tensor], FeatureBlock]
) -> PairBatch:
    """Return the batch with more candidates, which follow its own, in order of their rows.

    An item that is in the batch for a history's sake moves up; every item is in it once. A
    candidate that joins has a log inclusion of 0, and `not_negative` is as it was.

    Args:
        batch: whole, not a share of a batch.
        item_rows_K: (K,) int64 item rows; those that are candidates already change nothing.
        features: item rows to their encoded features.
    """
    own = batch.num_candidates
    joins = item_rows_K[~torch.isin(item_rows_K, batch.item_rows[:own])].unique()
    if not len(joins):
        return batch
    fresh = joins[~torch.isin(joins, batch.item_rows[own:])]
    rows = torch.cat([batch.item_rows, fresh])
    # Candidates, then who joins, then the rest of the histories; stable within each.
    rank = torch.where(torch.isin(rows, joins), 1, 2)
    rank[:own] = 0
    order = rank.argsort(stable=True)
    joined = order[own : own + len(joins)]
    order[own : own + len(joins)] = joined[rows[joined].argsort()]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    items = batch.items.above(features(fresh)) if len(fresh) else batch.items
    return replace(
        batch,
        items=items.take(order),
        item_rows=rows[order],
        num_candidates=own + len(joins),
        history=replace(batch.history, values=place[batch.history.values]),
        log_inclusion=torch.cat([batch.log_inclusion, batch.log_inclusion.new_zeros(len(joins))]),
    )
