"""Which values the training rows hold of each sparse feature, and how often."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from features.dataset import Dataset
from features.split import TRAIN
from recsys.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.diagnostics import FeatureValues


def dataset_feature_values(data: Dataset) -> list[FeatureValues]:
    """Return the values of the training rows: items and users as often as they stand there."""
    events, rows = data.tables.events, data.events_of((TRAIN,))
    users = np.bincount(events.user_row[rows], minlength=data.num_users)
    sides = (
        (data.encoder.layout("items"), data.items, torch.from_numpy(data.train_counts)),
        (data.encoder.layout("users"), data.users, torch.from_numpy(users)),
    )
    found = []
    for layout, block, counts in sides:
        seen = torch.nonzero(counts).flatten()
        found += _values(layout, block.take(seen), counts[seen])
    context = data.context.take(torch.from_numpy(rows))
    found += _values(data.encoder.layout("interactions"), context, None)
    return found


def block_feature_values(
    layout: FeatureLayout, blocks: Iterable[FeatureBlock]
) -> list[FeatureValues]:
    """Return the values of rows that come block by block."""
    merged: dict[str, FeatureValues] = {}
    for block in blocks:
        for one in _values(layout, block, None):
            merged[one.name] = _merged(merged[one.name], one) if one.name in merged else one
    return list(merged.values())


def _values(
    layout: FeatureLayout, block: FeatureBlock, times: Tensor | None
) -> list[FeatureValues]:
    """Return the values of a block whose rows stand for `times` (N,) rows each; None: for one."""
    rows = torch.ones(len(block), dtype=torch.int64) if times is None else times
    found = [
        _counted(name, block.single[:, column], rows)
        for column, (name, _) in enumerate(layout.single)
    ]
    for (name, _), jagged in zip(layout.multi, block.multi, strict=True):
        found.append(_counted(name, jagged.values, rows.repeat_interleave(jagged.lengths())))
    return found


def _counted(name: str, values: Tensor, times: Tensor) -> FeatureValues:
    distinct, inverse = values.unique(return_inverse=True)
    counts = torch.zeros(len(distinct), dtype=torch.int64).index_add_(0, inverse, times.long())
    return FeatureValues(name, distinct, counts)


def _merged(first: FeatureValues, second: FeatureValues) -> FeatureValues:
    values = torch.cat([first.values, second.values])
    return _counted(first.name, values, torch.cat([first.counts, second.counts]))
