"""Neighbours among sessions: the items of the most similar sessions."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from recsys.core.distinct import distinct_codes
from recsys.plain.interactions import Integers, Ones, user_items
from recsys.plain.kind import PlainConfig
from recsys.plain.ordered import TIE, popularity_share
from recsys.retrieval.follow import Matrix, last_steps


class SessionKNNConfig(PlainConfig):
    """Settings of a `SessionKNN`."""

    kind: Literal["v_sknn"] = "v_sknn"
    recent: Annotated[int, Field(ge=1)] = 500
    """Sessions that an item finds, the latest ones."""
    neighbours: Annotated[int, Field(ge=1)] = 500
    """Sessions that vote."""
    steps: Annotated[int, Field(ge=1)] = 10
    """How many of the last items look for neighbours."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """What an item of the history loses of its weight for each step since."""
    idf_power: Annotated[float, Field(ge=0)] = 2.0
    """Of the weight of rare items."""


@dataclass(frozen=True)
class SessionKNN:
    """V-SKNN: sessions near the current one vote for their items.

    Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018,
    https://arxiv.org/abs/1803.09587, method V-SKNN. Of a session s, with its items a set, and of
    the items i of the history, each with the age of its newest mention (the last step has 0),

        sim(s) = sum over i in both of decay^age(i) / sqrt(|s|)
        score(j) = idf(j)^idf_power sum over neighbours s with j of match(s) sim(s)
        match(s) = max(0.1, 1 - 0.1 times the least age of an item in both)
        idf(j) = log(1 + sessions / sessions with j)

    Neighbours are the `neighbours` most similar sessions, later ones first where equal. As in
    Kersbergen et al., "Serenade", SIGMOD 2022, section 3.1, an item finds the `recent` latest
    of its sessions alone, so that common items cost no more than others.

    sessions: (S, n_items) float32 CSR of ones, the latest session first. found (n_items + 1,)
    and finds: item i finds the sessions finds[found[i]:found[i + 1]], ascending.
    idf (n_items,) float32, with its power. popularity (n_items,) float32, at most 1, orders what
    no neighbour votes for.
    """

    sessions: Ones
    found: NDArray[np.int64]
    finds: NDArray[np.int32]
    idf: NDArray[np.float32]
    popularity: NDArray[np.float32]
    neighbours: int
    steps: int
    decay: float

    @classmethod
    def fit(
        cls,
        sequence: Integers,
        item_row: Integers,
        num_items: int,
        *,
        time: Integers | None = None,
        recent: int = 500,
        neighbours: int = 500,
        steps: int = 10,
        decay: float = 0.7,
        idf_power: float = 2.0,
        weight: NDArray[np.float32] | None = None,
    ) -> "SessionKNN":
        """Sort the sessions by when they ended, and note which ones each item finds.

        Args:
            sequence: (E,) the sequence of each training row, ascending.
            item_row: (E,) the items, in order within a sequence.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
            time: (E,) when; None: later sequences have higher numbers.
            recent: sessions that an item finds, the latest ones.
            neighbours: sessions that vote.
            steps: how many last items of a history look for neighbours.
            decay: what an item of the history loses of its weight a step.
            idf_power: of the weight of rare items.
        """
        names, number = distinct_codes(sequence)
        ends = np.searchsorted(number, np.arange(len(names)), side="right") - 1
        age = np.arange(len(names))[::-1] if time is None else -time[ends].astype(np.int64)
        place = np.empty(len(names), np.int64)
        # Of sessions that ended at once, the one of the higher number is the later.
        place[np.lexsort((-np.arange(len(names)), age))] = np.arange(len(names))
        sessions = user_items(place[number], item_row, num_items, weight=weight)
        sessions_of = sessions.T.tocsr()
        lengths = np.diff(sessions_of.indptr)
        order = np.arange(sessions_of.nnz) - np.repeat(sessions_of.indptr[:-1], lengths)
        idf = np.log1p(len(names) / np.maximum(lengths, 1)) ** idf_power
        return cls(
            sessions=sessions,
            found=np.concatenate([[0], np.cumsum(np.minimum(lengths, recent))]),
            finds=sessions_of.indices[order < recent],
            idf=idf.astype(np.float32),
            popularity=popularity_share(sessions),
            neighbours=neighbours,
            steps=steps,
            decay=decay,
        )

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return the neighbours' votes, (B, n_items)."""
        votes = self._nearest(history_values, history_offsets)
        scores: NDArray[np.float32] = (votes @ self.sessions).toarray()
        scores *= self.idf
        return scores + TIE * self.popularity

    def _nearest(self, history_values: Integers, history_offsets: Integers) -> Matrix:
        """Return what each neighbour's vote weighs, (B, S) CSR."""
        query, items, age = _newest_mentions(
            *last_steps(history_values, history_offsets, self.steps)
        )
        count = self.found[items + 1] - self.found[items]
        before = np.cumsum(count) - count
        where = np.repeat(self.found[items] - before, count) + np.arange(count.sum())
        num_queries, num_sessions = len(history_offsets) - 1, self.sessions.shape[0]
        pair = np.repeat(query * num_sessions, count) + self.finds[where]
        order = np.argsort(pair, kind="stable")
        pair = pair[order]
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        weight, match = np.float32(self.decay) ** age, np.maximum(0.1, 1 - 0.1 * age)
        similarity = np.add.reduceat(np.repeat(weight, count)[order], starts)
        nearest = np.maximum.reduceat(np.repeat(match, count)[order], starts)
        query, session = np.divmod(pair[starts], num_sessions)
        similarity /= np.sqrt(np.diff(self.sessions.indptr)[session])
        kept = _first_of_each(query, np.lexsort((session, -similarity, query)), self.neighbours)
        votes = (similarity * nearest)[kept].astype(np.float32)
        offsets = np.searchsorted(query[kept], np.arange(num_queries + 1))
        return sparse.csr_array((votes, session[kept], offsets), shape=(num_queries, num_sessions))


def vote_products(
    sequence: Integers,
    num_queries: int,
    *,
    recent: int = 500,
    neighbours: int = 500,
    steps: int = 10,
) -> float:
    """Return about how many multiplications the answers of a `SessionKNN` take.

    Args:
        sequence: (E,) the sequence of each training row.
        num_queries: how many ask.
        recent: sessions that an item finds.
        neighbours: sessions that vote.
        steps: how many last items of a history look for neighbours.
    """
    lengths = np.bincount(sequence).astype(np.float64)
    # A session that an item finds is longer than the mean: long ones hold more items.
    usual = float((lengths**2).sum() / max(1.0, lengths.sum()))
    return num_queries * (steps * recent + neighbours * usual)


def _newest_mentions(
    query: NDArray[np.int64], items: NDArray[np.int64], age: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Keep of every item of a query the mention of least age."""
    order = np.lexsort((age, items, query))
    query, items, age = query[order], items[order], age[order]
    first = np.ones(len(query), bool)
    first[1:] = (query[1:] != query[:-1]) | (items[1:] != items[:-1])
    return query[first], items[first], age[first]


def _first_of_each(
    query: NDArray[np.int64], order: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """Return the first `most` of each query in `order`, which has the queries ascending."""
    ordered = query[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[place < most]
