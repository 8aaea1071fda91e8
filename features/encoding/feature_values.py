"""Which values the training rows hold of each sparse feature, and how often."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.diagnostics import FeatureValues
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN


def dataset_feature_values(data: Dataset) -> list[FeatureValues]:
    """Return the values of the training rows: items and users as often as they occur there."""
    events, rows = data.tables.events, data.events_of((TRAIN,))
    users = np.bincount(events.user_row[rows], minlength=data.num_users)
    layout = data.encoder.layout
    return [
        *feature_values(layout("items"), data.items, torch.from_numpy(data.train_counts)),
        *feature_values(layout("users"), data.users, torch.from_numpy(users)),
        *feature_values(layout("interactions"), data.context.take(torch.from_numpy(rows))),
    ]


def block_feature_values(
    layout: FeatureLayout, blocks: Iterable[FeatureBlock]
) -> list[FeatureValues]:
    """Return the values of rows that come block by block."""
    return _by_name(one for block in blocks for one in feature_values(layout, block))


def feature_values(
    layout: FeatureLayout, block: FeatureBlock, counts: Tensor | None = None
) -> list[FeatureValues]:
    """Return the distinct values of each sparse feature of a block, and how often each occurs.

    The values of a feature that reads another one's rows are that one's.

    Args:
        layout: of the block.
        block: N rows.
        counts: (N,) int64, how many training rows each row stands for; rows that stand for none
            are left out. None: one each.
    """
    if counts is not None:
        seen = torch.nonzero(counts).flatten()
        block, counts = block.take(seen), counts[seen]
    times = torch.ones(len(block), dtype=torch.int64) if counts is None else counts
    found = [
        _counted(name, block.single[:, column], times)
        for column, (name, _) in enumerate(layout.single)
    ]
    for (name, _), jagged in zip(layout.multi, block.multi, strict=True):
        source = layout.source_of(name)
        found.append(_counted(source, jagged.values, times.repeat_interleave(jagged.lengths())))
    return _by_name(found)


def _by_name(found: Iterable[FeatureValues]) -> list[FeatureValues]:
    merged: dict[str, FeatureValues] = {}
    for one in found:
        merged[one.name] = _merged(merged[one.name], one) if one.name in merged else one
    return list(merged.values())


def _counted(name: str, values: Tensor, times: Tensor) -> FeatureValues:
    distinct, inverse = values.unique(return_inverse=True)
    counts = torch.zeros(len(distinct), dtype=torch.int64).index_add_(0, inverse, times.long())
    return FeatureValues(name, distinct, counts)


def _merged(first: FeatureValues, second: FeatureValues) -> FeatureValues:
    values = torch.cat([first.values, second.values])
    return _counted(first.name, values, torch.cat([first.counts, second.counts]))
