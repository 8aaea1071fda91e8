"""Which pairs can be among the k best, from the best score of every 16 items: for few queries.

The items are read once, and nothing has to be prepared. As many maxima as a list has places (and
as many more as items are hidden from it) belong to as many items, so the last of these maxima is
at most the score of the last place, and what is in no list hides under the smaller maxima.

Shape letters: B queries, N items, E width, S pairs.
"""

import numpy as np
from torch import Tensor

from recsys.core.distinct import is_among
from recsys.retrieval import scan
from recsys.retrieval.pairs import Ints
from recsys.retrieval.prepared import Prepared
from recsys.retrieval.screen import Excluded, rounding

SHARE = 4
"""A query is left where more than one in so many maxima would have to be looked under."""


def candidates(
    queries: Tensor, items: Prepared, excluded: Excluded, k: int
) -> tuple[Ints, Ints, Ints]:
    """Return pairs query (S,) and row (S,), by query, and queries that are left (M,), ascending.

    All that can be among the k best is in the pairs, and nothing hidden. Queries that hide much,
    and those whose scores are too much alike, are left.
    """
    size, num_items = len(queries), len(items.vectors)
    maxima = items.maxima(queries)
    few = maxima.shape[1] // SHARE
    slack = rounding(queries, items.largest())
    rank = k + np.bincount(excluded.query, minlength=size)
    left, found = [], [np.zeros(0, np.int64)]
    for number in range(size):
        line, place = maxima[number], maxima.shape[1] - int(rank[number])
        if rank[number] <= few:
            # Both scores, the one that is compared with and the one that counts, are rounded.
            least = np.partition(line, place)[place] - 4 * slack[number]
            blocks = np.flatnonzero(line >= least)
            if len(blocks) <= few:
                found.append(blocks + number * maxima.shape[1])
                continue
        left.append(number)
    query, block = np.divmod(np.concatenate(found), max(1, maxima.shape[1]))
    row = (block[:, None] * scan.LANES + np.arange(scan.LANES)).ravel()
    query = query.repeat(scan.LANES)
    kept = row < num_items
    if len(excluded.row):
        hidden = excluded.query * num_items + excluded.row
        kept &= ~is_among(query * num_items + row, hidden)
    return query[kept], row[kept], np.array(left, np.int64)
