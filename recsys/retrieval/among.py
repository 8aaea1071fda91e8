"""Search among some of the items: whichever way is cheaper, and no list short where items pass.

Filtering before the search keeps lists full. Either all items that pass are scored, or the
index is asked: with its own filter where its library has one (`FilteredIndex`), else for so many
more than k that k of them should pass. What it leaves short is answered exactly. Which way is
decided by what each costs, measured once, never by the clock: the same requests in the same
batches get the same lists.

Shape letters: Q queries, N items, M of them that pass, E width, I interests.
"""

import math

import numpy as np
import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval import screen
from recsys.retrieval.gains import scored
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import FilteredIndex, Index
from recsys.retrieval.pairs import top_of_pairs
from recsys.retrieval.passing import where
from recsys.retrieval.topk import exact_topk

WALK = 2100.0
"""Nanoseconds for each candidate that a walk through a graph keeps."""
GATHER = 100.0
"""Nanoseconds to copy the vector of an item that passes, once for all queries of a set."""
SCORE = 9.0
"""Nanoseconds to score one item for one query, alone."""
SCORE_MANY = 0.6
"""The same where many queries are screened together in bytes."""
MARGIN = 1.5
"""How many items more than the share of those that pass would need are asked for."""


class Among:
    """Search among some items of an index, by their rows in all of it; see `Index`."""

    def __init__(self, index: Index, item_vectors: Tensor, passes: Tensor) -> None:
        """Get ready.

        Args:
            index: over the rows of `item_vectors`.
            item_vectors: (N, E).
            passes: (N,) bool, the items that may be found.
        """
        self.passes = passes
        self._index, self._vectors = index, item_vectors
        self._rows = passes.nonzero().flatten()
        self._own: Tensor | None = None
        self._place = torch.full((len(passes),), -1, dtype=torch.int64)
        self._place[self._rows] = torch.arange(len(self._rows))

    @property
    def dim(self) -> int:
        """E."""
        return self._index.dim

    def __len__(self) -> int:
        return len(self._index)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the k best of the items that pass; see `Index.search`."""
        if len(self._rows) == len(self):
            return self._index.search(queries, k, exclude)
        index, depth = self._index, self.depth(k, len(queries))
        if depth is None:
            return self._exactly(queries, k, exclude)
        if isinstance(index, FilteredIndex):
            scores, rows = index.search_passing(queries, k, self.passes, exclude)
        else:
            scores, rows = self._first_that_pass(queries, k, depth, exclude)
        # Lists of fewer items than k are short for good, and need no second look.
        short = (rows[:, min(k, len(self._rows)) - 1] < 0).nonzero().flatten()
        if len(short):
            hidden = None if exclude is None else exclude.take(short)
            scores[short], rows[short] = self._exactly(queries[short], k, hidden)
        return scores, rows

    def _first_that_pass(
        self, queries: Tensor, k: int, depth: int, exclude: Jagged | None
    ) -> tuple[Tensor, Tensor]:
        scores, rows = self._index.search(queries, depth, exclude)
        fails = (rows < 0) | ~self.passes[rows.clamp(min=0)]
        order = fails.int().argsort(dim=1, stable=True)[:, :k]
        failed = fails.gather(1, order)
        scores = scores.gather(1, order).masked_fill(failed, -torch.inf)
        return scores, rows.gather(1, order).masked_fill(failed, -1)

    def depth(self, k: int, num_queries: int) -> int | None:
        """Return how many candidates the index has to look at; None: all that pass are scored.

        Args:
            k: length of the lists.
            num_queries: that are searched together.
        """
        index, passing = self._index, len(self._rows)
        if isinstance(index, ExactVectors) or not passing:
            return None
        if isinstance(index, FilteredIndex):
            depth = index.candidates(k, passing)
        else:
            depth = min(len(self), math.ceil(MARGIN * k * len(self) / passing))
        many = num_queries >= screen.FEWEST_TO_PREPARE and screen.bytes_pay()
        exactly = passing * (GATHER + num_queries * (SCORE_MANY if many else SCORE))
        return depth if num_queries * depth * WALK < exactly else None

    def _exactly(self, queries: Tensor, k: int, exclude: Jagged | None) -> tuple[Tensor, Tensor]:
        if not len(self._rows):
            shape = (len(queries), k)
            return torch.full(shape, -torch.inf), torch.full(shape, -1)
        if self._own is None:
            self._own = self._vectors[self._rows]
        if exclude is not None:
            place = self._place[exclude.values]
            inside = place >= 0
            kept = where(exclude, inside)
            exclude = Jagged(place[inside], kept.offsets)
        scores, places = exact_topk(queries, self._own, k, exclude)
        rows = self._rows[places.clamp(min=0)].masked_fill(places < 0, -1)
        return scores, rows


def best_of_lists(
    item_vectors: Tensor, queries: Tensor, gains: Jagged | None, lists: Jagged, k: int
) -> tuple[Tensor, Tensor]:
    """Return scores (Q, k) and rows (Q, k) of the best items of each query's own list.

    Args:
        item_vectors: (N, E).
        queries: (Q, E) or (Q, I, E).
        gains: as `recsys.retrieval.gains` has them; None: nothing gains.
        lists: Q rows of distinct item rows, ascending.
        k: length of the lists; short ones end in -inf and -1.
    """
    query, row = lists.owners().numpy(), lists.values.numpy()
    own = scored(queries, item_vectors, query, row)
    size = len(item_vectors)
    if gains is not None and len(gains.values):
        assert gains.weights is not None
        known = gains.owners().numpy() * size + gains.values.numpy()
        pairs = query * size + row
        at = np.searchsorted(known, pairs).clip(max=len(known) - 1)
        own = own + np.where(known[at] == pairs, gains.weights.numpy()[at], np.float32(0))
        shown = own > -np.inf
        query, row, own = query[shown], row[shown], own[shown]
    scores, rows = top_of_pairs(query, row, own, num_queries=len(lists), num_rows=size, k=k)
    return torch.from_numpy(scores), torch.from_numpy(rows)
