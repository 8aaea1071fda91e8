"""Items that nobody could take in training: negatives unless they are left out of the draw."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.batches.sampling import log_inclusion
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TEST, TRAIN

CONFIG = LoaderConfig(
    batch_size=64,
    uniform_negatives=200,
    history_length=5,
    id_dropout=0.0,
    context_dropout=0.0,
    seed=3,
)


@pytest.fixture(scope="module")
def unreleased(dataset: Dataset) -> Dataset:
    """The small world with every third item held out whole."""
    part = np.full_like(dataset.part, TRAIN)
    part[dataset.tables.events.item_row % 3 == 0] = TEST
    return replace(dataset, part=part)


def candidates(data: Dataset, config: LoaderConfig) -> set[int]:
    loader = PairLoader(data, config)
    batches = [loader.batch(0, step) for step in range(4)]
    for batch in batches:
        assert torch.isfinite(batch.log_inclusion).all()
    return {row for batch in batches for row in batch.item_rows[: batch.num_candidates].tolist()}


@pytest.mark.parametrize("whole_catalogue", [False, True])
def test_only_items_with_training_rows_are_candidates_where_asked(
    unreleased: Dataset, whole_catalogue: bool
) -> None:
    config = replace(CONFIG, whole_catalogue=whole_catalogue)
    trained = set(np.flatnonzero(unreleased.train_counts > 0).tolist())
    assert candidates(unreleased, config) == set(range(unreleased.num_items))
    assert candidates(unreleased, replace(config, trained_only=True)) == trained


def test_their_inclusion_is_that_of_a_catalogue_without_the_others(unreleased: Dataset) -> None:
    loader = PairLoader(unreleased, replace(CONFIG, trained_only=True))
    counts = unreleased.train_counts
    expected = log_inclusion(counts[counts > 0], batch_size=64, uniform_negatives=200)
    assert loader.log_inclusion[torch.from_numpy(counts > 0)].tolist() == expected.tolist()
