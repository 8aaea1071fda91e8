"""A baseline as a ranker that falls back on popularity, and for which queries it does.

A baseline scores items by what it knows of a history. Of a user without one, or none of whose
items training saw, it knows nothing and scores all items as it would for anybody: what it
recommends then is what is popular, not whichever items the table happens to have first. The same
order decides among items with equal scores, above all those of which it knows nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.features.dataset.queries import Queries
from recsys.training.evaluation.evaluate import CHUNK, score_ranker
from recsys.training.families.plain.interactions import CELLS_AT_ONCE, Baseline, Integers
from recsys.training.families.plain.popularity import Popularity


@dataclass(frozen=True)
class PopularFirst:
    """The catalogue in the order that baselines fall back on.

    words: what it is ordered by. order (n_items,) int64: item rows, the most popular one first.
    """

    words: str
    order: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        time: Integers | None,
        window: int,
    ) -> "PopularFirst":
        """Order by users within the window where times are known, then by users of all time.

        Args:
            user_row: (E,) the users, training rows only.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            time: (E,) when, where that is known.
            window: how long before the last row counts as recent, in units of `time`.
        """
        ever = Popularity.fit(user_row, item_row, num_items).num_users
        if time is None or not len(time):
            return cls("popularity", np.argsort(-ever, kind="stable"))
        recent = Popularity.fit(user_row, item_row, num_items, time=time, window=window).num_users
        return cls("recent popularity", np.lexsort((-ever, -recent)))


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a baseline answers.

    Attributes:
        filter_seen: whether what a query has seen is left out.
        of_sessions: whether it is asked with the steps of a session, else with all that was seen.
        breaks_ties: whether it orders items without a score by itself.
        falls_back: whether it has no scores for users it knows nothing of.
    """

    filter_seen: bool
    of_sessions: bool = False
    breaks_ties: bool = False
    falls_back: bool = True


class PlainRanker:
    """A `recsys.training.evaluation.evaluate.Ranker` by the scores of a baseline."""

    def __init__(self, fitted: Baseline, popular: PopularFirst, answering: Answering) -> None:
        self.fitted, self.popular, self.answering = fitted, popular, answering
        unknown = fitted.score(np.zeros(0, np.int64), np.zeros(2, np.int64))
        self._of_unknown: NDArray[np.float32] = unknown[0]
        # Falls by one an item: exact up to 2^24 items.
        self._by_popularity = np.empty(len(popular.order), np.float32)
        self._by_popularity[popular.order] = -np.arange(len(popular.order))
        self._last: tuple[Queries, NDArray[np.bool_]] | None = None

    def __call__(
        self, queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the best k item rows of each query, (Q, k), -1 where the list is short."""
        found: list[NDArray[np.bool_]] = []

        def score(asked: Queries) -> NDArray[np.float32]:
            scores = self._scores(asked)
            found.append(self._says_nothing(scores, asked))
            scores[found[-1]] = self._by_popularity
            return scores

        answering = self.answering
        rank = score_ranker(
            score,
            filter_seen=answering.filter_seen,
            queries_at_once=min(CHUNK, max(1, CELLS_AT_ONCE // len(self._of_unknown))),
            ties=None if answering.breaks_ties else self.popular.order,
        )
        lists = rank(queries, k, among=among)
        self._last = queries, np.concatenate([np.zeros(0, bool), *found])
        return lists

    def fell_back(self, queries: Queries) -> NDArray[np.bool_]:
        """Return which queries are answered by popularity alone, (Q,)."""
        if self._last is None or self._last[0] is not queries:  # else a ranking has found out
            self(queries, 1)
        assert self._last is not None
        return self._last[1]

    def _scores(self, asked: Queries) -> NDArray[np.float32]:
        history = asked.history_items if self.answering.of_sessions else asked.seen
        return self.fitted.score(history.values.numpy(), history.offsets.numpy())

    def _says_nothing(self, scores: NDArray[np.float32], asked: Queries) -> NDArray[np.bool_]:
        """Whether a query's history changes no score of what may be recommended to it, (B,)."""
        if not self.answering.falls_back:
            return np.zeros(len(scores), bool)
        scored = scores != self._of_unknown
        if self.answering.filter_seen:
            owner = np.repeat(np.arange(len(scores)), asked.seen.lengths().numpy())
            scored[owner, asked.seen.values.numpy()] = False
        return ~scored.any(1)
