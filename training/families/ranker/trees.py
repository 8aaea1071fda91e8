"""Gradient-boosted trees on the rows of a ranker, to compare with; needs `lightgbm`.

LightGBM (Ke et al., NeurIPS 2017) reads the encoded rows that the rankers read. A feature with
one value a row is one of its categories: the commonest `MOST_VALUES` values of the training rows
have codes of their own, the others share one. Of a feature with several values a row the last one
is read, which in a history is the latest. Numbers are read as they are, an unknown one as nan.

The booster stops by the log loss of the validation rows. It is kept nowhere: a `TreeModel` gives
logits of other rows, no bundle.

Shape letters: N rows, F columns, K values with a code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.core.distinct import distinct_counts
from recsys.data.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.embeddings.fields import dense_features
from recsys.features.dataset.split import VALIDATION
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import Predictions

MOST_VALUES = 8191
"""Values of a feature that are told apart."""
MOST_ROWS = 2_000_000
"""Training rows at most: as many of the first epoch, whose order is random."""
_BATCH = 65_536
_ROUNDS, _PATIENCE = 1000, 50
_SETTINGS = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 63,
    "deterministic": True,
    "force_row_wise": True,
    "feature_pre_filter": False,
    "verbose": -1,
}


def is_installed() -> bool:
    """Whether `lightgbm` can be imported."""
    return find_spec("lightgbm") is not None


@dataclass
class Codes:
    """Small numbers for the commonest values of a feature; 0 for all others.

    values: (K,) ascending, None before the training rows are known.
    """

    values: NDArray[np.int64] | None = None

    def fit(self, values_N: NDArray[np.int64]) -> None:
        """Learn the values; of several equally common ones the smaller."""
        values, counts = distinct_counts(values_N)
        commonest = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        self.values = np.sort(values[commonest])

    def of(self, values_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the codes, (N,)."""
        assert self.values is not None
        if not len(self.values):
            return np.zeros(len(values_N), np.float32)
        place_N = np.searchsorted(self.values, values_N).clip(max=len(self.values) - 1)
        return np.where(self.values[place_N] == values_N, place_N + 1, 0).astype(np.float32)


@dataclass
class TreeInputs:
    """Encoded rows as a matrix (N, F): categories, then numbers."""

    layout: FeatureLayout
    codes: list[Codes] = field(default_factory=list)

    @property
    def num_categories(self) -> int:
        """Columns that are categories."""
        return len(self.layout.single) + len(self.layout.multi)

    def fit(self, blocks: list[FeatureBlock]) -> NDArray[np.float32]:
        """Learn the codes and return the matrix of all blocks, one below the other."""
        self.codes = [Codes() for _ in range(self.num_categories)]
        for column, codes in enumerate(self.codes):
            pairs = [self._values(block, column) for block in blocks]
            codes.fit(np.concatenate([values_N[there_N] for values_N, there_N in pairs]))
        return np.concatenate([self.matrix(block) for block in blocks])

    def matrix(self, block: FeatureBlock) -> NDArray[np.float32]:
        """Return (N, F)."""
        columns = []
        for column, codes in enumerate(self.codes):
            values_N, there_N = self._values(block, column)
            columns.append(np.where(there_N, codes.of(values_N), np.float32(np.nan)))
        return np.column_stack([*columns, self._numbers(block)]).astype(np.float32)

    def _values(
        self, block: FeatureBlock, column: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return one value of a category and whether there is one, (N,) each."""
        if column < len(self.layout.single):
            return block.single[:, column].numpy(), np.ones(len(block), bool)
        jagged = block.multi[column - len(self.layout.single)]
        known = jagged.values.numpy() if len(jagged.values) else np.zeros(1, np.int64)
        last_N = (jagged.offsets[1:] - 1).clamp(min=0).numpy()
        return known[last_N], jagged.lengths().numpy() > 0

    def _numbers(self, block: FeatureBlock) -> NDArray[np.float32]:
        """Return the numbers without null indicators, nan where one is set."""
        dense, found, start = block.dense.numpy(), [], 0
        for _, count in dense_features(self.layout.dense):
            end = start + count
            null_N1 = dense[:, end - 1 : end] > 0
            found.append(np.where(null_N1, np.nan, dense[:, start : end - 1]))
            start = end
        return np.concatenate(found, axis=1) if found else dense[:, :0]


@dataclass(frozen=True)
class TreeModel:
    """A trained booster and what makes its inputs."""

    inputs: TreeInputs
    booster: Any

    @classmethod
    def fit(cls, config: RankerExperiment, rows: RankingRows) -> Self:
        """Train on the rows that an epoch of a ranker sees, up to `MOST_ROWS`.

        Raises:
            ImportError: `lightgbm` is not installed.
        """
        import lightgbm

        inputs = TreeInputs(rows.layout)
        train = list(_up_to(rows.loader.epoch(0), MOST_ROWS))
        matrix_NF = inputs.fit([batch.features for batch in train])
        label_N, weight_N = _labels(train)
        weight_N = weight_N * np.where(label_N > 0, config.training.positive_weight, 1.0)
        data = lightgbm.Dataset(
            matrix_NF,
            label_N,
            weight=weight_N,
            categorical_feature=list(range(inputs.num_categories)),
        )
        seen = list(rows.loader.ordered(VALIDATION, _BATCH))
        label_N, weight_N = _labels(seen)
        held_out = lightgbm.Dataset(
            np.concatenate([inputs.matrix(batch.features) for batch in seen]),
            label_N,
            weight=weight_N,
            # Training may have seen a share of the negatives: the log loss is that of the log.
            init_score=np.full(len(label_N), rows.logit_offset),
            reference=data,
        )
        booster = lightgbm.train(
            {**_SETTINGS, "num_threads": torch.get_num_threads(), "seed": config.training.seed},
            data,
            num_boost_round=_ROUNDS,
            valid_sets=[held_out],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )
        return cls(inputs, booster)

    def predictions(self, rows: RankingRows, part: int) -> Predictions:
        """Return the predictions for all rows of `part`."""
        logits, labels, weights = [], [], []
        for batch in rows.loader.ordered(part, _BATCH):
            found: Any = self.booster.predict(self.inputs.matrix(batch.features), raw_score=True)
            logits.append(found.astype(np.float32))
            labels.append(batch.label.numpy())
            weights.append(batch.weight.numpy())
        logit, label, weight = map(np.concatenate, (logits, labels, weights))
        return Predictions(logit, label, weight, rows.logit_offset)


def _up_to(batches: Iterable[RankingBatch], rows: int) -> Iterable[RankingBatch]:
    """Yield the first batches, until they hold `rows` rows."""
    for batch in batches:
        yield batch
        rows -= len(batch)
        if rows <= 0:
            return


def _labels(batches: list[RankingBatch]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return labels and weights of all rows."""
    label = np.concatenate([batch.label.numpy() for batch in batches])
    return label, np.concatenate([batch.weight.numpy() for batch in batches])
