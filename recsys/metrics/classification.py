"""Metrics of predicted probabilities of a binary label: AUC, log loss, calibration.

Rows may carry weights; a bootstrap draws rows by giving them Poisson(1) weights, which is the
multinomial bootstrap in the limit and needs the rows sorted only once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_TINY = 1e-7


def auc(score: Floats, label: Floats, weight: Floats | None = None) -> float:
    """Return the probability that a positive scores above a negative, ties counting half.

    Args:
        score: (N,) larger means more likely 1.
        label: (N,) 0 or 1.
        weight: (N,) of the rows; None: all the same.

    Returns:
        NaN where one of the labels has no weight.
    """
    return _Sorted.of(score, label).auc(np.ones(len(score)) if weight is None else weight)


def log_loss(probability: Floats, label: Floats, weight: Floats | None = None) -> float:
    """Return the mean of -log p(label), in nats; probabilities are kept 1e-7 away from 0 and 1."""
    return float(np.average(row_losses(probability, label), weights=weight))


def row_losses(probability: Floats, label: Floats) -> NDArray[np.float64]:
    """Return -log p(label) of each row, (N,) in nats."""
    p = np.clip(probability.astype(np.float64), _TINY, 1 - _TINY)
    return np.where(label > 0, -np.log(p), -np.log1p(-p))


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % bootstrap interval over rows."""

    value: float
    low: float
    high: float


def intervals(
    probability: Floats, label: Floats, weight: Floats | None = None, *, samples: int, seed: int
) -> dict[str, Interval]:
    """Return "auc" and "log_loss" with percentile intervals.

    Args:
        probability: (N,) of label 1.
        label: (N,) 0 or 1.
        weight: (N,) of the rows; None: all the same.
        samples: how many times the rows are resampled.
        seed: of the draws.
    """
    found, drawn = resampled(probability, label, weight, samples=samples, seed=seed)
    return {
        name: interval_of(float(value), column)
        for name, value, column in zip(("auc", "log_loss"), found, drawn.T, strict=True)
    }


def resampled(
    probability: Floats, label: Floats, weight: Floats | None = None, *, samples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AUC and log loss, (2,), and their values on resampled rows, (samples, 2).

    Arguments as of `intervals`; one seed draws the same rows, whatever the predictions.
    """
    base = np.ones(len(label)) if weight is None else weight.astype(np.float64)
    ordered = _Sorted.of(probability, label)
    losses = row_losses(probability, label)
    rng = np.random.default_rng(seed)
    drawn = np.empty((samples, 2))
    for sample in range(samples):
        weights = base * rng.poisson(1.0, len(base))
        drawn[sample] = ordered.auc(weights), losses @ weights / max(weights.sum(), 1e-12)
    return np.array([ordered.auc(base), np.average(losses, weights=base)]), drawn


def interval_of(value: float, drawn: NDArray[np.float64]) -> Interval:
    """Return a value with the 95 % percentile interval of `drawn` (samples,), NaN left out."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, (0.025, 0.975))
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class Calibration:
    """Rows by predicted probability, in bins of equal weight.

    predicted, observed: (bins,) mean prediction and mean label. rows (bins,). error: the mean
    of |predicted - observed|, by weight (expected calibration error, Naeini et al. 2015).
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    rows: NDArray[np.int64]
    error: float


def calibration(
    probability: Floats, label: Floats, weight: Floats | None = None, *, bins: int = 20
) -> Calibration:
    """Return how predictions compare with what happened; probability, label and weight (N,)."""
    order = np.argsort(probability, kind="stable")
    base = np.ones(len(order)) if weight is None else weight[order].astype(np.float64)
    bins = min(bins, len(order))
    middle = np.cumsum(base) - base / 2
    of_row = np.minimum((middle / base.sum() * bins).astype(np.int64), bins - 1)
    weights = np.bincount(of_row, base, bins)
    used = weights > 0
    means = [
        np.bincount(of_row, base * values[order], bins)[used] / weights[used]
        for values in (probability, label)
    ]
    error = float(np.average(np.abs(means[0] - means[1]), weights=weights[used]))
    return Calibration(means[0], means[1], np.bincount(of_row, minlength=bins)[used], error)


@dataclass(frozen=True)
class _Sorted:
    """Rows by ascending score; `ends` is the last row of each run of equal scores."""

    order: NDArray[np.int64]
    positive: NDArray[np.bool_]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, score: Floats, label: Floats) -> "_Sorted":
        order = np.argsort(score, kind="stable")
        changes = np.flatnonzero(np.diff(score[order]))
        return cls(order, label[order] > 0, np.append(changes, len(order) - 1))

    def auc(self, weight: Floats) -> float:
        sorted_weight = weight[self.order].astype(np.float64)
        up = np.cumsum(np.where(self.positive, sorted_weight, 0.0))[self.ends]
        down = np.cumsum(np.where(self.positive, 0.0, sorted_weight))[self.ends]
        if not up[-1] or not down[-1]:
            return float("nan")
        positives = np.diff(up, prepend=0.0)
        negatives = np.diff(down, prepend=0.0)
        below = down - negatives
        return float(positives @ (below + negatives / 2) / (up[-1] * down[-1]))
