"""The label features of the rows of a data set, as each row may see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.label_features import LabelNumbers

with on_first_use():
    import torch
    from torch import Tensor


class RowMemory:
    """Training rows see each other without their own labels, every other row sees all of them."""

    def __init__(self, data: Dataset) -> None:
        encoder = data.encoder
        features = encoder.schema.label_features
        self._asked = LabelNumbers(features, encoder.columns_layout(), encoder.label_tables)
        self._trained = data.events_of((TRAIN,))
        self._item_row = data.tables.events.item_row
        self._numbers: Tensor | None = data.training_labels().numbers() if features else None

    def beside(
        self, block: FeatureBlock, numbers: NDArray[np.int64], item_rows: NDArray[np.int64]
    ) -> FeatureBlock:
        """Return the rows of `block` with their features behind them.

        Args:
            block: N rows that begin with users, context and items.
            numbers: (N,) the events that they are.
            item_rows: (N,) their items, which may be others than those of the events.
        """
        if self._numbers is None:
            return block
        places = np.searchsorted(self._trained, numbers)
        places = np.minimum(places, len(self._trained) - 1)
        trained = self._trained[places] == numbers
        trained &= self._item_row[numbers] == item_rows
        own = self._numbers[torch.from_numpy(places)]
        if not trained.all():
            known = torch.from_numpy(trained).unsqueeze(1)
            own = torch.where(known, own, self._asked.of_all(block))
        return self._asked.beside(block, own)

    def again(self, before: FeatureBlock, after: FeatureBlock) -> FeatureBlock:
        """Return `after`, made of `before`, with the features of the values it holds now."""
        return self._asked.again(before, after)
