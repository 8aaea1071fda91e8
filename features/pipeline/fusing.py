"""How the candidates of several sources become one list.

Each way is a class with what it has learnt; `FUSIONS` has them by the name in a configuration.
Letters: C candidates, S sources.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.features.pipeline.candidates import Candidates
from recsys.pipeline.config import Calibrated, Learned, ReciprocalRank, RoundRobin

Floats = NDArray[np.float64]
OF_A_SOURCE = ("named", "rank", "first places", "score")
OF_AN_ITEM = ("popularity", "is new")


class Fusion(Protocol):
    """Scores of candidates from what their sources say."""

    def parts(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return what each source adds to a score, (C, S + 1); the last column is the item's own.

        Args:
            candidates: C of them.
            counts: (n_items,) training rows of each item.
        """

    def score(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return the scores, (C,), larger is better."""


@dataclass(frozen=True)
class ByRank:
    """See `ReciprocalRank`."""

    constant: float

    def parts(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return 1 / (constant + rank) of each source."""
        rank = candidates.rank
        found = np.where(rank > 0, 1 / (self.constant + rank), 0.0)
        return np.column_stack([found, np.zeros(len(found))])

    def score(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return their sum."""
        found: Floats = self.parts(candidates, counts).sum(1)
        return found


@dataclass(frozen=True)
class InTurn:
    """See `RoundRobin`."""

    def parts(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return 1 / place of the source that names a candidate first, in its column."""
        sources = candidates.rank.shape[1]
        place = np.where(
            candidates.named, (candidates.rank - 1) * sources + np.arange(sources) + 1, np.inf
        )
        found = np.where(place == place.min(1, keepdims=True), 1 / place, 0.0)
        return np.column_stack([found, np.zeros(len(found))])

    def score(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return 1 / place in the joined list."""
        found: Floats = self.parts(candidates, counts).sum(1)
        return found


@dataclass(frozen=True)
class ByProbability:
    """See `Calibrated`: P = 1 - product over sources of (1 - P_s), log odds of P_s linear.

    weights: (S, 3): of the logarithm of the rank, of the score in deviations, and the constant.
    """

    weights: Floats

    @classmethod
    def fit(
        cls, _settings: Calibrated, candidates: Candidates, counts: NDArray[np.int64], hit: Floats
    ) -> "ByProbability":
        """Fit each source on what it names by itself; hit: (C,) 0 or 1."""
        found = []
        for source in range(candidates.rank.shape[1]):
            named = candidates.named[:, source]
            inputs = _rank_and_score(candidates, source)[named]
            found.append(_logistic(inputs, hit[named], 1.0))
        return cls(np.array(found))

    def parts(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return -log(1 - P_s) of each source."""
        columns = []
        for source, weights in enumerate(self.weights):
            odds = _rank_and_score(candidates, source) @ weights[:2] + weights[2]
            columns.append(np.where(candidates.named[:, source], np.logaddexp(0, odds), 0.0))
        return np.column_stack([*columns, np.zeros(len(candidates.rank))])

    def score(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return the probability that one of the sources is right."""
        found: Floats = -np.expm1(-self.parts(candidates, counts).sum(1))
        return found


@dataclass(frozen=True)
class ByWeights:
    """See `Learned`: a probability whose log odds are linear in what is known of a candidate.

    weights: (4 S + 2,); constant: of the log odds; mean, scale: (4 S + 2,) of the inputs.
    """

    weights: Floats
    constant: float
    mean: Floats
    scale: Floats

    @classmethod
    def fit(
        cls, settings: Learned, candidates: Candidates, counts: NDArray[np.int64], hit: Floats
    ) -> "ByWeights":
        """Fit on candidates of which it is known whether they were right; hit: (C,) 0 or 1."""
        inputs = inputs_of(candidates, counts)
        mean, scale = inputs.mean(0), inputs.std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        found = _logistic((inputs - mean) / scale, hit, settings.l2)
        return cls(found[:-1], float(found[-1]), mean, scale)

    @classmethod
    def fit_one(
        cls,
        settings: Learned,
        candidates: Candidates,
        counts: NDArray[np.int64],
        hit: Floats,
        only: int,
    ) -> "ByWeights":
        """Fit on source `only` alone: its order, before what only the others name."""
        inputs = inputs_of(candidates, counts)
        mean, scale = np.zeros(inputs.shape[1]), np.ones(inputs.shape[1])
        columns = only * len(OF_A_SOURCE) + np.arange(2)  # named, rank
        found = _logistic(inputs[:, columns], hit, settings.l2)
        weights = np.zeros(inputs.shape[1])
        weights[columns] = np.maximum(found[:-1], 1e-6)  # an earlier place is never worse
        return cls(weights, float(found[-1]), mean, scale)

    def parts(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return what the inputs of each source, and of the item, add to the log odds."""
        added = (inputs_of(candidates, counts) - self.mean) / self.scale * self.weights
        sources = candidates.rank.shape[1]
        of_sources = (
            added[:, : -len(OF_AN_ITEM)].reshape(len(added), sources, len(OF_A_SOURCE)).sum(2)
        )
        return np.column_stack([of_sources, added[:, -len(OF_AN_ITEM) :].sum(1)])

    def score(self, candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
        """Return probabilities."""
        odds = self.parts(candidates, counts).sum(1) + self.constant
        found: Floats = 1 / (1 + np.exp(-odds))
        return found


def inputs_of(candidates: Candidates, counts: NDArray[np.int64]) -> Floats:
    """Return what is known of candidates as numbers, (C, 4 S + 2); see `input_names`."""
    rank = candidates.rank
    named = candidates.named
    nearness = np.where(named, np.log1p(candidates.takes) - np.log(np.maximum(rank, 1)), 0.0)
    first = np.where(named, 1 / np.sqrt(np.maximum(rank, 1)), 0.0)
    of_sources = np.stack([named, nearness, first, candidates.position], axis=2)
    count = counts[candidates.items.values.numpy()]
    flat = of_sources.reshape(len(rank), rank.shape[1] * len(OF_A_SOURCE))
    return np.column_stack([flat, np.log1p(count), count == 0]).astype(np.float64)


def input_names(sources: tuple[str, ...]) -> list[str]:
    """Return what the columns of `inputs_of` are called."""
    return [f"{source} {what}" for source in sources for what in OF_A_SOURCE] + [*OF_AN_ITEM]


def _rank_and_score(candidates: Candidates, source: int) -> Floats:
    rank = np.log(np.maximum(candidates.rank[:, source], 1))
    return np.column_stack([rank, candidates.position[:, source]])


def _logistic(inputs: Floats, hit: Floats, l2: float) -> Floats:
    """Return weights and constant of a logistic regression, or the base rate where hit is one."""
    if not 0 < hit.sum() < len(hit):
        rate = (hit.sum() + 0.5) / (len(hit) + 1)
        return np.append(np.zeros(inputs.shape[1]), np.log(rate / (1 - rate)))
    from sklearn.linear_model import LogisticRegression  # which takes seconds to import

    model = LogisticRegression(C=1 / l2 if l2 else 1e12, max_iter=1000)
    model.fit(inputs, hit)
    return np.append(model.coef_[0], model.intercept_[0])


def _by_rank(settings: ReciprocalRank, *_data: Any) -> ByRank:
    return ByRank(settings.constant)


def _in_turn(_settings: RoundRobin, *_data: Any) -> InTurn:
    return InTurn()


FUSIONS: dict[str, tuple[type[Any], Callable[..., Fusion]]] = {
    "learned": (ByWeights, ByWeights.fit),
    "calibrated": (ByProbability, ByProbability.fit),
    "reciprocal_rank": (ByRank, _by_rank),
    "round_robin": (InTurn, _in_turn),
}
"""Name in a configuration -> the class, and what fits one: settings, candidates, counts, hits."""


def fit_fusion(
    settings: Any,
    candidates: Candidates,
    counts: NDArray[np.int64],
    hit: Floats,
    only: int | None = None,
) -> Fusion:
    """Return the fusion of these settings.

    Args:
        settings: `PipelineConfig.fuse`.
        candidates: of requests of which it is known what was right.
        counts: (n_items,) training rows of each item.
        hit: (C,) 1 where a candidate was right, else 0.
        only: the source whose order stays, of `Learned`; all are joined without it.
    """
    if only is not None and isinstance(settings, Learned):
        return ByWeights.fit_one(settings, candidates, counts, hit, only)
    return FUSIONS[settings.kind][1](settings, candidates, counts, hit)
