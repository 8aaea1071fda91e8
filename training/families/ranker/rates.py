"""Plain rankers: what share of the training rows of an item, or of a user and an item, is positive.

    r(x) = (positives of x + S p) / (rows of x + S)                  p: share of positives in all
    logit(item) = logit r(item)
    logit(user, item) = logit p + [logit r(user) - logit p] + [logit r(item) - logit p]

The second is naive Bayes on the two ids. S rows of the mean speak for items of few rows. Where
negatives are drawn, an item's rows are each event once, of which those of another item are
negative. Shape letters: N rows, C items or users.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.split import TEST, TRAIN

STRENGTH = 20.0
"""Rows of the mean that each item and user has besides its own."""
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Logits of the shares of positives: of all, of each item (C,), of each user (C,)."""

    mean: float
    items: _Floats
    users: _Floats

    @classmethod
    def fit(cls, loader: RankingLoader) -> "Rates":
        """Count the training rows of a log."""
        data, events = loader.data, loader.data.tables.events
        rows = data.targets_of((TRAIN,))
        weight = events.weight[rows].astype(np.float64)
        if events.label is None:
            return cls._of_positives(events.item_row[rows], weight, data.num_items, data.num_users)
        positive = weight * (events.label[rows] > 0)
        share = float(positive.sum() / weight.sum())
        sides = []
        for owner, count in (
            (events.item_row[rows], data.num_items),
            (events.user_row[rows], data.num_users),
        ):
            of_each = np.bincount(owner, positive, count), np.bincount(owner, weight, count)
            sides.append(_logit(_smoothed(*of_each, share)))
        return cls(float(_logit(np.array([share]))[0]), *sides)

    @classmethod
    def _of_positives(
        cls, items: NDArray[np.int32], weight: _Floats, num_items: int, num_users: int
    ) -> "Rates":
        """Return the rates of a log of positives: each user's share is that of any other."""
        share = 1 / num_items
        positive = np.bincount(items, weight, num_items)
        every = np.full(num_items, weight.sum())
        mean = float(_logit(np.array([share]))[0])
        return cls(mean, _logit(_smoothed(positive, every, share)), np.full(num_users, mean))

    def logits(self, loader: RankingLoader) -> dict[str, _Floats]:
        """Return the logits of the test rows by the name of each plain ranker, (N,) each."""
        users, items = loader.users(TEST), self.items[loader.items(TEST)]
        return {"item_rate": items, "user_item_rates": items + self.users[users] - self.mean}


def _smoothed(positive: NDArray[Any], rows: NDArray[Any], share: float) -> _Floats:
    return np.asarray((positive + STRENGTH * share) / (rows + STRENGTH))


def _logit(share: _Floats) -> _Floats:
    inside = np.clip(share, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside) - np.log1p(-inside))
