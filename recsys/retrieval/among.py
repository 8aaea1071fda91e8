"""Search among some of the items: exactly among few of them, through the index among many.

Filtering before the search keeps lists full. Among few items all are scored; an approximate index
is asked for more than k where many pass, until k of them do, and what it leaves short is answered
exactly.

Shape letters: Q queries, N items, M of them that pass, E width, I interests.
"""

import math

import numpy as np
import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval.gains import scored
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.pairs import top_of_pairs
from recsys.retrieval.passing import where
from recsys.retrieval.topk import exact_topk

WALK = 500
"""Vectors that could be scored one after the other while a graph finds one item more."""
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
        depth = self.depth(k)
        if depth is None:
            return self._exactly(queries, k, exclude)
        scores, rows = self._index.search(queries, depth, exclude)
        fails = (rows < 0) | ~self.passes[rows.clamp(min=0)]
        order = fails.int().argsort(dim=1, stable=True)[:, :k]
        failed = fails.gather(1, order)
        scores = scores.gather(1, order).masked_fill(failed, -torch.inf)
        rows = rows.gather(1, order).masked_fill(failed, -1)
        short = (rows[:, -1] < 0).nonzero().flatten()
        if len(short):
            hidden = None if exclude is None else exclude.take(short)
            scores[short], rows[short] = self._exactly(queries[short], k, hidden)
        return scores, rows

    def depth(self, k: int) -> int | None:
        """Return how many items the index is asked for; None: all that pass are scored instead."""
        if isinstance(self._index, ExactVectors) or not len(self._rows):
            return None
        wanted = math.ceil(MARGIN * k * len(self) / len(self._rows))
        return wanted if wanted * WALK < len(self._rows) else None

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
