"""Lists that end where relevance does: the threshold, and what is kept at one.

Shape letters: Q queries, K length of the whole lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.relevance import Relevance
from recsys.training.evaluation.slices import HISTORY_SLICES, ranges

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LEAST_HITS = 50
"""Fewer hits are too few to say where they end."""
_POINTS = 60


@dataclass(frozen=True)
class ScoredLists:
    """The whole lists of Q queries, best first.

    scores: (Q, K) float32, -inf where a list is short. hit: (Q, K), which items are relevant.
    crowds: (Q,), how much is near each query. num_steps: (Q,) of the histories as the model reads
    them. num_seen: (Q,) earlier events of the users. num_relevant: (Q,) at least 1.
    """

    scores: NDArray[np.float32]
    hit: Flags
    crowds: Floats
    num_steps: NDArray[np.int64]
    num_seen: NDArray[np.int64]
    num_relevant: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def there(self) -> Flags:
        """Which places hold an item, (Q, K)."""
        return self.scores > -np.inf

    @property
    def recall(self) -> Floats:
        """How much of the recall of its query each place holds, (Q, K)."""
        return self.hit / self.num_relevant[:, None]

    def take(self, rows: NDArray[np.int64] | Flags) -> "ScoredLists":
        """Return some of the queries."""
        return ScoredLists(**{name: values[rows] for name, values in vars(self).items()})

    def logits(self, relevance: Relevance) -> Floats:
        """Return z of each place, (Q, K)."""
        return relevance.logits(self.scores, self.crowds, self.num_steps)


def threshold_of_recall(z: Floats, lists: ScoredLists, share: float) -> float:
    """Return the largest threshold at which `share` of the recall of whole lists is kept.

    z: (Q, K) of the places.
    """
    recall, values = lists.recall[lists.hit], z[lists.hit]
    order = np.argsort(-values, kind="stable")
    kept = np.cumsum(recall[order])
    # Sums differ in their last digits by their order.
    enough = int(np.searchsorted(kept, share * kept[-1] * (1 - 1e-12)))
    return float(values[order[min(enough, len(order) - 1)]])


def threshold_of_precision(z: Floats, lists: ScoredLists, precision: float) -> float | None:
    """Return the smallest threshold at which so many of all items are hits; None: there is none.

    z: (Q, K) of the places. Thresholds with fewer than `LEAST_HITS` hits are not looked at.
    """
    values, hit = z[lists.there], lists.hit[lists.there]
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(hit[order])
    last = np.append(values[1:] != values[:-1], True)  # equal ones stay together
    reached = (hits >= precision * np.arange(1, len(hits) + 1)) & (hits >= LEAST_HITS) & last
    found = np.flatnonzero(reached)
    return float(values[found[-1]]) if len(found) else None


@dataclass(frozen=True)
class Kept:
    """What is left of lists.

    precision: share of hits among all items. recall: mean over queries. length: mean, items.
    cut: share of the lists that became shorter.
    """

    queries: int
    precision: float
    recall: float
    length: float
    cut: float

    @classmethod
    def of(cls, lists: ScoredLists, keep: Flags) -> "Kept":
        """Return what is left of them where `keep` (Q, K) is true."""
        lengths, items = keep.sum(1), int(keep.sum())
        return cls(
            queries=len(lists),
            precision=float((lists.hit & keep).sum() / max(items, 1)),
            recall=float((lists.recall * keep).sum(1).mean()),
            length=float(lengths.mean()),
            cut=float((lengths < lists.there.sum(1)).mean()),
        )


@dataclass(frozen=True)
class Curve:
    """What is kept at thresholds, ascending: (T,) each; chance: the thresholds as chances."""

    chance: Floats
    precision: Floats
    recall: Floats
    length: Floats


@dataclass(frozen=True)
class CutLists:
    """How lists that end where relevance does compare with whole ones, on the same queries.

    Attributes:
        relevance: the map and its threshold.
        whole: the lists of `relevance.k` items.
        kept: what the threshold leaves of them.
        shorter: lists of one length for all that keep as much recall, or the next length.
        curve: what other thresholds leave.
        by_length: (K,) recall of lists of 1 to K items.
        slices: "users: 1-4 events" -> whole and kept.
    """

    relevance: Relevance
    whole: Kept
    kept: Kept
    shorter: int
    curve: Curve
    by_length: Floats
    slices: Mapping[str, tuple[Kept, Kept]] = field(default_factory=dict)

    @property
    def recall_kept(self) -> float:
        """Recall, as a share of that of whole lists."""
        return self.kept.recall / self.whole.recall if self.whole.recall else 1.0

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "relevance_recall_kept": self.recall_kept,
            "relevance_mean_length": self.kept.length,
            "relevance_lists_cut": self.kept.cut,
            "relevance_precision": self.kept.precision,
            "relevance_precision_of_whole_lists": self.whole.precision,
            "relevance_length_of_one_for_all": float(self.shorter),
        }


def cut_lists(lists: ScoredLists, relevance: Relevance) -> CutLists:
    """Return what the threshold of `relevance` leaves of `lists`."""
    z, there = lists.logits(relevance), lists.there
    keep = there & (z >= relevance.threshold)
    kept = Kept.of(lists, keep)
    by_length = np.cumsum(lists.recall.mean(0))
    slices = {}
    for words, inside in ranges(lists.num_seen, HISTORY_SLICES).items():
        if inside.any():
            some = lists.take(inside)
            slices[f"users: {words} events"] = (
                Kept.of(some, there[inside]),
                Kept.of(some, keep[inside]),
            )
    return CutLists(
        relevance=relevance,
        whole=Kept.of(lists, there),
        kept=kept,
        shorter=min(int(np.searchsorted(by_length, kept.recall - 1e-9)) + 1, by_length.size),
        curve=_curve(lists, z),
        by_length=by_length,
        slices=slices,
    )


def _curve(lists: ScoredLists, z: Floats) -> Curve:
    """Return what thresholds leave, at evenly spread quantiles of z."""
    there = lists.there
    thresholds = np.quantile(z[there], np.linspace(0, 0.995, _POINTS), method="inverted_cdf")
    kept = [Kept.of(lists, there & (z >= threshold)) for threshold in thresholds]
    return Curve(
        chance=1 / (1 + np.exp(-thresholds)),
        precision=np.array([one.precision for one in kept]),
        recall=np.array([one.recall for one in kept]),
        length=np.array([one.length for one in kept]),
    )
