"""Candidates of requests in an order, and the items that are pinned to places of their lists.

Shape letters: B requests, W candidates, P pins.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranked:
    """B lists of candidates, best first, and beside them what is pinned.

    rows (B, W): items, -1 behind the last; scores (B, W): -inf there. pins (B, P): the item of each
    pin, -1 for none; it is no candidate any more. places (B, P): where it is to be in the list,
    from 0, each once in a request; -1 for none. pin_scores (B, P).
    """

    rows: Rows
    scores: Scores
    pins: Rows
    places: Rows
    pin_scores: Scores

    @classmethod
    def of(cls, rows: Rows, scores: Scores, k: int) -> "Ranked":
        """Return candidates (B, K) without pins; K may be less than k, the length of lists."""
        missing = ((0, 0), (0, max(0, k - rows.shape[1])))
        rows = np.pad(np.asarray(rows, np.int64), missing, constant_values=-1)
        scores = np.pad(np.asarray(scores, np.float32), missing, constant_values=-np.inf)
        none = np.zeros((len(rows), 0), np.int64)
        found = cls(rows, scores, none, none, none.astype(np.float32))
        return found.without(rows < 0)

    @property
    def is_short(self) -> Mask:
        """Which of the places (B, W) have no candidate."""
        return self.rows < 0

    def in_order(self, order: Rows) -> "Ranked":
        """Return the candidates `order` (B, W) in that order."""
        rows, scores = _along(self.rows, order), _along(self.scores, order)
        return replace(self, rows=rows, scores=scores)

    def without(self, dropped: Mask) -> "Ranked":
        """Return the same without some candidates, (B, W); those behind them come up."""
        rows = np.where(dropped, -1, self.rows)
        scores = np.where(dropped, np.float32(-np.inf), self.scores)
        return replace(self, rows=rows, scores=scores).in_order(_last(rows < 0))

    def free_places(self, place: int) -> Rows:
        """Return the first place from `place` on, from 0, that no pin has, (B,)."""
        found = np.full(len(self.rows), place)
        while (is_taken := (self.places == found[:, None]).any(1)).any():
            found += is_taken
        return found

    def pinned(self, items: Rows, places: Rows, k: int) -> "Ranked":
        """Return the same with an item of each request (B,), -1 for none, at a place (B,) below k.

        Its score is that of the item which is there, or of the last one where a list ends before;
        0 in an empty list.
        """
        rows, scores = self.listed(k)
        last = (rows >= 0).sum(1) - 1
        at = np.clip(np.minimum(places, last), 0, k - 1)
        own = np.where(last < 0, 0, scores[np.arange(len(rows)), at]).astype(np.float32)
        some = items >= 0
        added = replace(
            self,
            pins=np.column_stack([self.pins, items]),
            places=np.column_stack([self.places, np.where(some, places, -1)]),
            pin_scores=np.column_stack([self.pin_scores, own]),
        )
        return added.without(some[:, None] & (self.rows == items[:, None]))

    def listed(self, k: int) -> tuple[Rows, Scores]:
        """Return the lists of k items with their pins, rows (B, k) and scores (B, k).

        A list that ends before the place of a pin ends with it.
        """
        if not self.pins.shape[1]:
            return self.rows[:, :k].copy(), self.scores[:, :k].copy()
        request, pin = np.nonzero(self.pins >= 0)
        place = self.places[request, pin]
        is_pin = np.zeros((len(self.rows), k), bool)
        is_pin[request, place] = True
        candidate = np.maximum(np.cumsum(~is_pin, 1) - 1, 0)
        rows, scores = _along(self.rows, candidate), _along(self.scores, candidate)
        rows[request, place] = self.pins[request, pin]
        scores[request, place] = self.pin_scores[request, pin]
        order = _last(rows < 0)
        return _along(rows, order), _along(scores, order)


def _along(values: NDArray[Any], order: Rows) -> NDArray[Any]:
    return np.take_along_axis(values, order, axis=1)


def _last(short: Mask) -> Rows:
    """Return the order (B, W) in which the places that are short (B, W) come last."""
    return np.argsort(short, axis=1, kind="stable")
