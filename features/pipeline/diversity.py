"""Maximal marginal relevance: items that are relevant and unlike those above them.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and
Producing Summaries", SIGIR 1998. With l = 1 - lambda of the paper the next item is

    argmax over i not chosen of  (1 - l) relevance(i) - l max over j chosen of similarity(i, j)

Shape letters: B requests, C of them at a time, W candidates, P items chosen before, S = P + W, N
items of a catalogue, E width of a vector, T values.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct_codes
from recsys.features.pipeline.item_values import ItemValues, ranks_among_equals
from recsys.features.pipeline.ranked import Mask, Ranked, Rows, Scores

Numbers = NDArray[np.float64]

_MOST_NUMBERS = 1 << 23
"""Numbers of an array of similarities that are worked out at a time."""
_NEVER = -1e30
"""The value of a place without a candidate, below that of all others."""


class Similarity(Protocol):
    """The similarity of items."""

    least: float
    """The least that it may be."""

    def of_pairs(self, rows: Rows) -> NDArray[np.float32]:
        """Return the similarity of items (C, S), -1 for none, to each other, (C, S, S)."""

    def width(self, rows: Rows) -> int:
        """Return how many numbers an item takes while they are compared, rows (B, S)."""


@dataclass(frozen=True, eq=False)
class OfValues:
    """Jaccard's: shared values / all values of two items; 0 where one of them has none."""

    values: ItemValues
    least = 0.0

    def width(self, rows: Rows) -> int:
        """Return how many values two of the items of a request may share."""
        lengths = self.values.codes.lengths().numpy()[rows]
        return int(lengths.sum(1).max(initial=0)) // 2

    def of_pairs(self, rows: Rows) -> NDArray[np.float32]:
        """Return the similarity of items (C, S), -1 for none, to each other, (C, S, S)."""
        codes = self.values.of_rows(rows.reshape(-1))
        request, item = np.divmod(codes.owners().numpy(), rows.shape[1])
        names = request * self.values.num_codes + codes.values.numpy()
        found, name_of = distinct_codes(names)
        # A value that one item of a request has is shared with none.
        is_shared = np.bincount(name_of, minlength=len(found)) > 1
        of_request = found // self.values.num_codes
        counts = np.bincount(of_request[is_shared], minlength=len(rows))
        starts = np.cumsum(counts) - counts
        number = np.cumsum(is_shared) - 1 - starts[of_request]  # of a value in its request
        kept = is_shared[name_of]
        has_CST = np.zeros((*rows.shape, int(counts.max(initial=0))), np.float32)
        has_CST[request[kept], item[kept], number[name_of[kept]]] = 1
        shared_CSS = has_CST @ has_CST.transpose(0, 2, 1)
        sizes_CS = codes.lengths().numpy().reshape(rows.shape).astype(np.float32)
        all_CSS = sizes_CS[:, :, None] + sizes_CS[:, None, :] - shared_CSS
        return shared_CSS / np.maximum(all_CSS, 1, out=all_CSS)


@dataclass(frozen=True, eq=False)
class OfVectors:
    """The cosine of vectors (N, E) float32; 0 where one of them is zero."""

    vectors: NDArray[np.float32]
    inverse_norms: NDArray[np.float32]
    least = -1.0

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> "OfVectors":
        """Take the vectors of N items; the item -1 has none."""
        norms = np.append(np.sqrt(np.einsum("ne,ne->n", vectors, vectors)), 0)
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return cls(vectors, inverse.astype(np.float32))

    def width(self, rows: Rows) -> int:
        """Return E."""
        return self.vectors.shape[1]

    def of_pairs(self, rows: Rows) -> NDArray[np.float32]:
        """Return the similarity of items (C, S), -1 for none, to each other, (C, S, S)."""
        own_CSE = self.vectors[rows] * self.inverse_norms[rows][:, :, None]
        return own_CSE @ own_CSE.transpose(0, 2, 1)


def relevance(scores: Scores) -> Numbers:
    """Return scores (B, W) scaled to 0..1 over each request; 0 where all are equal or -inf."""
    is_finite = np.isfinite(scores)
    low = np.where(is_finite, scores, np.inf).min(1, initial=np.inf, keepdims=True)
    high = np.where(is_finite, scores, -np.inf).max(1, initial=-np.inf, keepdims=True)
    low, high = (np.where(low <= high, one, 0).astype(np.float64) for one in (low, high))
    span = np.where(high > low, high - low, 1)
    return (np.clip(scores, low, high) - low) / span


def order_by_value(ranked: Ranked, codes: Rows, weight: float) -> Rows:
    """Return the order (B, W) of the candidates where no item has several values.

    There the similarity is 1 to items of the same value and 0 to others. Of the items of one value
    the most relevant is chosen first, and all others of them lose `weight`: the order is that of
    the sum.

    Args:
        ranked: the candidates, and the pins as chosen before.
        codes: (N + 1,) the value of each item, -1 for none.
        weight: of the similarity, 0..1.
    """
    relevance_BW = (1 - weight) * relevance(ranked.scores)  # of weight 1 none: the order decides
    best = np.argsort(np.where(ranked.is_short, np.inf, -relevance_BW), axis=1, kind="stable")
    in_order = np.take_along_axis(ranked.rows, best, axis=1)
    ranks = ranks_among_equals(codes[np.concatenate([ranked.pins, in_order], axis=1)])
    is_alike = np.zeros(ranked.rows.shape)
    np.put_along_axis(is_alike, best, ranks[:, ranked.pins.shape[1] :] > 0, axis=1)
    values = relevance_BW - weight * is_alike
    return np.argsort(np.where(ranked.is_short, np.inf, -values), axis=1, kind="stable")


def order_by_similarity(ranked: Ranked, similarity: Similarity, weight: float, depth: int) -> Rows:
    """Return the order (B, W) of the candidates.

    Args:
        ranked: the candidates, and the pins as chosen before.
        similarity: of items.
        weight: of the similarity, 0..1.
        depth: how many are chosen; the others follow in the order that they have.
    """
    rows = np.concatenate([ranked.pins, ranked.rows], axis=1)
    values = (1 - weight) * relevance(ranked.scores)
    values[ranked.is_short] = _NEVER
    size = rows.shape[1]
    at_a_time = max(1, _MOST_NUMBERS // max(1, size * max(size, similarity.width(rows))))
    order = np.empty(ranked.rows.shape, np.int64)
    for start in range(0, len(rows), at_a_time):
        part = slice(start, start + at_a_time)
        chosen = ranked.pins[part] >= 0
        order[part] = _chosen(
            values[part], similarity.of_pairs(rows[part]), chosen, weight, similarity.least, depth
        )
    return order


def _chosen(
    values: Numbers,
    similar: NDArray[np.float32],
    before: Mask,
    weight: float,
    least: float,
    depth: int,
) -> Rows:
    """Return the order (C, W) of candidates by weighed relevance (C, W) and similarity (C, S, S).

    before: (C, P) which of the first P of the S items are there.
    """
    num_before, count = before.shape[1], values.shape[1]
    most = np.full(values.shape, least)
    for pin in range(num_before):
        own = similar[:, pin, num_before:]
        most = np.where(before[:, pin, None], np.maximum(most, own), most)
    similar = similar[:, num_before:, num_before:]
    requests, left = np.arange(len(values)), values.copy()
    places = np.tile(np.arange(count) + depth, (len(values), 1))
    for place in range(min(depth, count)):
        pick = (left - weight * most).argmax(1)
        places[requests, pick] = place
        left[requests, pick] = -np.inf
        np.maximum(most, similar[requests, pick], out=most)
    return places.argsort(1)
