"""A plain model as a ranker of an evaluation, and for which queries it falls back on popularity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.features.dataset.queries import Queries
from recsys.plain.answering import MovedModel, PlainModel


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a plain model is asked.

    Attributes:
        filter_seen: whether what a query has seen is left out.
        of_sessions: whether it is asked with the steps of a session, else with all that was seen.
    """

    filter_seen: bool
    of_sessions: bool = False


class PlainRanker:
    """A `recsys.training.evaluation.evaluate.Ranker` by the scores of a plain model."""

    def __init__(self, model: PlainModel | MovedModel, answering: Answering) -> None:
        self.model, self.answering = model, answering
        self._last: tuple[Queries, NDArray[np.bool_]] | None = None

    def __call__(
        self, queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the best k item rows of each query, (Q, k), -1 where the list is short."""
        history = queries.history_items if self.answering.of_sessions else queries.seen
        exclude = queries.seen if self.answering.filter_seen else None
        top = self.model.top(history, k, exclude=exclude, among=among)
        self._last = queries, top.popular
        return top.rows.numpy().astype(np.int32)

    def fell_back(self, queries: Queries) -> NDArray[np.bool_]:
        """Return which queries are answered by popularity alone, (Q,)."""
        if self._last is None or self._last[0] is not queries:  # else a ranking has found out
            self(queries, 1)
        assert self._last is not None
        return self._last[1]
