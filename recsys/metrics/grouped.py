"""Metrics of scores within groups of rows: a user's rows, or the rows of one candidate list.

What distinguishes users, which an AUC over all rows rewards, counts for nothing here.

    GAUC    mean of the groups' AUC, weighted by their rows (Zhou et al., "Deep Interest Network",
            KDD 2018, section 6.2)
    NDCG@k  sum over the first k ranks of label / log2(rank + 1), over the best possible sum; rows
            with tied scores share the discounts of their ranks (McSherry and Najork, ECIR 2008)

A group that holds one label alone has no information on a ranker: it has no value, NaN.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.metrics.classification import Interval, interval_of

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class GroupedRows:
    """Rows by group, best score first; worked out once for every metric.

    order (N,): rows by group, then descending score. first (G,): where each group starts in
    `order`. tie_first (T,): where each run of equal scores starts.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    tie_first: NDArray[np.int64]

    @classmethod
    def of(cls, score: Floats, group: Integers) -> "GroupedRows":
        """Sort rows; score (N,), group (N,) any numbers, equal within a group."""
        order = np.lexsort((-score, group))
        groups, scores = group[order], score[order]
        starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
        changes = (np.diff(groups, prepend=groups[:1] - 1) != 0) | (
            np.diff(scores, prepend=scores[:1]) != 0
        )
        return cls(order, starts, np.flatnonzero(changes))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each group, (G,)."""
        return np.diff(self.first, append=len(self.order))

    def auc(self, label: Floats) -> NDArray[np.float64]:
        """Return the AUC of each group, (G,), ties counting half; label (N,) 0 or 1."""
        positive = label[self.order] > 0
        ups = np.add.reduceat(positive, self.tie_first, dtype=np.float64)
        downs = np.diff(self.tie_first, append=len(self.order)) - ups
        group_of_tie = np.searchsorted(self.first, self.tie_first, side="right") - 1
        all_ups = np.bincount(group_of_tie, ups)
        all_downs = np.bincount(group_of_tie, downs)
        # Negatives of the group behind each run.
        through = np.cumsum(downs)
        before_group = np.concatenate([[0.0], np.cumsum(all_downs)])[:-1]
        behind = all_downs[group_of_tie] - (through - before_group[group_of_tie])
        won = np.bincount(group_of_tie, ups * (behind + downs / 2))
        return _divide(won, all_ups * all_downs)

    def ndcg(self, label: Floats, k: int) -> NDArray[np.float64]:
        """Return NDCG@k of each group, (G,); label (N,) 0 or 1."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        sizes = self.sizes
        place = np.arange(len(self.order)) - np.repeat(self.first, sizes)
        discount = np.where(place < k, 1 / np.log2(place + 2), 0.0)
        runs = np.diff(self.tie_first, append=len(self.order))
        shared = np.repeat(np.add.reduceat(discount, self.tie_first) / runs, runs)
        gained = np.add.reduceat(label[self.order] * shared, self.first)
        positives = np.add.reduceat(label[self.order], self.first).astype(np.int64)
        best = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])
        ndcg = _divide(gained, best[np.minimum(positives, k)])
        return np.where(positives < sizes, ndcg, np.nan)


def gauc(score: Floats, label: Floats, group: Integers) -> float:
    """Return the mean AUC of the groups, weighted by rows; NaN where no group has both labels.

    Args:
        score: (N,) larger means more likely 1.
        label: (N,) 0 or 1.
        group: (N,) whose row it is.
    """
    rows = GroupedRows.of(score, group)
    return weighted_mean(rows.auc(label), rows.sizes)


def weighted_mean(values: Floats, weights: NDArray[Any]) -> float:
    """Return the mean of the values that are defined; NaN without any."""
    defined = ~np.isnan(values)
    if not defined.any():
        return float("nan")
    return float(np.average(values[defined], weights=weights[defined]))


def weighted_interval(
    values: Floats, weights: NDArray[Any], *, samples: int, seed: int
) -> Interval:
    """Return `weighted_mean` with its 95 % bootstrap interval over groups.

    Args:
        values: (G,), NaN where a group has none.
        weights: (G,).
        samples: how many times the groups are resampled, by Poisson(1) counts.
        seed: of the draws.
    """
    drawn = weighted_draws(values, weights, samples=samples, seed=seed)
    return interval_of(weighted_mean(values, weights), drawn)


def weighted_draws(
    values: Floats, weights: NDArray[Any], *, samples: int, seed: int
) -> NDArray[np.float64]:
    """Return `weighted_mean` of resampled groups, (samples,); arguments as of `weighted_interval`.

    One seed draws the same groups, whatever the values, where the same ones are defined.
    """
    defined = ~np.isnan(values)
    value, weight = values[defined], weights[defined].astype(np.float64)
    rng = np.random.default_rng(seed)
    times = rng.poisson(1.0, (samples, len(value))) * weight
    return _divide(times @ value, times.sum(1))


def _divide(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
