"""Negative rows of a ranker: a share of those in the log, or other items where the log has none.

Either changes how often a row is positive, and so what a model's logits mean; the `offset` of a
sampling is what has to be added to them for the rows as they are.

    keeping a share r of the negatives    log r (He et al., "Practical Lessons from Predicting
                                          Clicks on Ads at Facebook", 2014, section 6.3)
    n of the other V - 1 items a row      log (n / (V - 1)): the sigmoid is then the probability
                                          of an interaction with the item
"""

from math import log

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError

Integers = NDArray[np.int64]
EVALUATION_NEGATIVES = 50
"""Other items drawn for each row of a log without negatives when a ranker is evaluated."""


def share_offset(label: NDArray[np.float32], rate: float) -> float:
    """Return the offset where `kept_rows` leaves a share of the negatives."""
    negatives = int((label == 0).sum())
    return log(_kept(negatives, rate) / negatives) if negatives else 0.0


def num_kept(label: NDArray[np.float32], rate: float) -> int:
    """Return how many rows `kept_rows` leaves."""
    negatives = int((label == 0).sum())
    return len(label) - negatives + _kept(negatives, rate)


def kept_rows(label: NDArray[np.float32], rate: float, rng: np.random.Generator) -> Integers:
    """Return all positive rows and a share of the negative ones, at least one, in random order.

    Args:
        label: (N,) 0 or 1.
        rate: share of the negatives.
        rng: draws without replacement.
    """
    negatives = np.flatnonzero(label == 0)
    chosen = rng.choice(negatives, _kept(len(negatives), rate), replace=False, shuffle=False)
    return rng.permutation(np.concatenate([np.flatnonzero(label != 0), chosen]))


def check_negatives(count: int, num_items: int) -> None:
    """Refuse to draw other items of a catalogue that has no other one.

    Raises:
        ConfigError: it has not.
    """
    if count and num_items < 2:
        raise ConfigError("training.negatives: the catalogue has one item, and no other one")


def other_items(
    item_rows: Integers, count: int, num_items: int, rng: np.random.Generator
) -> Integers:
    """Return for each row its own item, then `count` others drawn uniformly, (N, 1 + count)."""
    # A draw from the catalogue without one item: step over it.
    drawn = rng.integers(0, num_items - 1, (len(item_rows), count))
    own = item_rows[:, None].astype(np.int64)
    return np.concatenate([own, drawn + (drawn >= own)], axis=1)


def others_offset(count: int, num_items: int) -> float:
    """Return the offset where `count` others are drawn for each row."""
    return log(count / (num_items - 1))


def _kept(negatives: int, rate: float) -> int:
    return min(negatives, max(1, round(rate * negatives)))
