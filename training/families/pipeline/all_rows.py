"""The data of a pipeline that is done learning to join: all rows before the test part."""

from dataclasses import replace

import numpy as np

from recsys.features.dataset.dataset import Dataset, fit_encoder
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.encoding.encoder import FeatureEncoder


def trained_on_all(data: Dataset) -> Dataset:
    """Return the data with the validation rows among the training rows."""
    part = np.where(data.part == VALIDATION, np.int8(TRAIN), data.part).astype(np.int8)
    return replace(data, part=part)


def as_served(data: Dataset, learnt: FeatureEncoder) -> Dataset:
    """Return the same, with items encoded for what has learnt to join and rank.

    Numbers have the scales of `learnt`, which they had then; ages are counted back from the last of
    the training rows, as they were then.
    """
    found = trained_on_all(data)
    encoder = fit_encoder(found.schema, found.tables, found.part).continuing(learnt)
    return replace(found, encoder=encoder, items=encoder.encode("items", found.tables.items))
