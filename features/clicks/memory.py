"""The label features of a click log: summed up in one reading, told row by row in the next.

What is kept are sums a distinct value, whatever the number of rows; `rows: earlier` needs training
rows in the order of their time.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock
from recsys.features.clicks.rows import ClickSource
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.label_features import LabelNumbers
from recsys.features.encoding.label_sums import LabelSums, LabelTable, OtherFolds, Running, Seen
from recsys.features.kinds.derived import LabelFeature
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.rows import Rows

with on_first_use():
    import torch

Columns = Callable[[Rows], Mapping[str, pa.Array]]
"""Returns the columns of a batch, their types decided."""
Parts = Callable[[Rows, int], NDArray[np.int8]]
"""Returns the part of each row of a batch whose first row has a position among the usable rows."""


class ClickMemory:
    """What each row of a click log is told of the labels of training rows."""

    def __init__(
        self, source: ClickSource, encoder: FeatureEncoder, columns: Columns, parts: Parts
    ) -> None:
        """Read the training rows once and sum them up, where a feature asks for it.

        Raises:
            ConfigError: a feature has too many values.
            DataError: as reading the log does.
        """
        self._source, schema = source, encoder.schema
        self._features = schema.label_features
        self._has_time = schema.interactions.time is not None
        sums = {one.name: LabelSums(one.name, self._folds(one)) for one in self._features}
        if sums:
            _sum_up(source, encoder, columns, parts, sums)
        self.tables: dict[str, LabelTable] = {name: one.table() for name, one in sums.items()}
        self._training = {
            one.name: sums[one.name].outside()
            if self._folds(one)
            else Running(self.tables[one.name].hashes)
            for one in self._features
        }
        self._asked = LabelNumbers(self._features, encoder.columns_layout(), self.tables)
        self._latest = np.iinfo(np.int64).min

    def beside(self, block: FeatureBlock, rows: Rows, part: NDArray[np.int8]) -> FeatureBlock:
        """Return the features of the next rows (N) of the log behind their columns.

        Raises:
            DataError: training rows are not in the order of their time, and a feature needs it.
        """
        if not self._features:
            return block
        numbers, trained = self._asked.of_all(block), np.flatnonzero(part == TRAIN)
        if len(trained):
            places = torch.from_numpy(trained)
            own = self._asked.values(block.take(places))
            time = self._times(rows, trained)
            seen = [
                self._told(feature, values, rows, trained, time)
                for feature, values in zip(self._features, own, strict=True)
            ]
            numbers[places] = self._asked.numbers(seen)
        return self._asked.beside(block, numbers)

    def _folds(self, feature: LabelFeature) -> int:
        return feature.folds_of(has_time=self._has_time)

    def _told(
        self,
        feature: LabelFeature,
        values: NDArray[np.int64],
        rows: Rows,
        trained: NDArray[np.int64],
        time: NDArray[np.int64],
    ) -> Seen:
        training = self._training[feature.name]
        if isinstance(training, OtherFolds):
            return training.of(values, rows.rows[trained])
        label, weight = _counted(rows)
        return training.add(values, time, label[trained], weight[trained])

    def _times(self, rows: Rows, trained: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the times of training rows, (N,), in their order where a feature needs it."""
        found = self._source.times(rows)
        if found is None or all(self._folds(one) for one in self._features):
            return np.zeros(len(trained), np.int64)
        time = found[trained]
        back = np.flatnonzero(np.append(self._latest, time[:-1]) > time)
        if len(back):
            feature = next(one for one in self._features if not self._folds(one))
            (place,) = self._source.files.places(rows.rows[trained[back[:1]]])
            raise DataError(
                f"this training row is earlier than the one before it, and feature "
                f"'{feature.name}' is of earlier rows",
                rows=[place],
                remedy="sort the log by its time, or set rows: folds for the feature",
            )
        self._latest = int(time[-1])
        return time


def _sum_up(
    source: ClickSource,
    encoder: FeatureEncoder,
    columns: Columns,
    parts: Parts,
    sums: Mapping[str, LabelSums],
) -> None:
    """Add every training row to the sums, by the name of their feature."""
    schema = encoder.schema
    wanted = {part for one in schema.label_features for part in one.parts}
    features = tuple(
        one for one in schema.features_of("interactions") if wanted & set(one.lookup_names)
    )
    narrow = replace(encoder, schema=schema.model_copy(update={"features": features}))
    asked = LabelNumbers(schema.label_features, narrow.columns_layout(), {})
    position = 0
    with closing(source.batches(features, Ledger(source.files))) as batches:
        for rows in batches:
            trained = np.flatnonzero(parts(rows, position) == TRAIN)
            position += len(rows)
            block = narrow.encode("interactions", pa.table(dict(columns(rows))))
            values = asked.values(block.take(torch.from_numpy(trained)))
            label, weight = _counted(rows)
            for one, found in zip(schema.label_features, values, strict=True):
                sums[one.name].add(found, rows.rows[trained], label[trained], weight[trained])


def _counted(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return label and weight of each row."""
    assert rows.label is not None
    ones = np.ones(len(rows), np.float32)
    return rows.label, ones if rows.weight is None else rows.weight
