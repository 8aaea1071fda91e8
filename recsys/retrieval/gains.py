"""Search where a few items of each query gain or lose something on top of their vectors' product.

No index needs to know. It is asked for the best without gains, of all items but those that lose;
what gains or loses, few and known, is scored in full and joined with what was found. An item that
gains nothing and is among the best k with gains is among the best k without, so that is exact where
the index is.

Gains are rows of distinct item rows whose weights are what each gains; what gains -inf is in no
list. Shape letters: Q queries,
E width, I interests.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.core.distinct import is_among
from recsys.data.batch import Jagged
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.interests import merged, search
from recsys.retrieval.pairs import Floats, Ints, score_pairs, top_of_pairs
from recsys.sampling.candidates import row_by_row


def search_with_gains(
    index: Index,
    item_vectors: Tensor,
    queries: Tensor,
    gains: Jagged,
    k: int,
    exclude: Jagged | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scores (Q, k) and item rows (Q, k), best first, as `Index.search`.

    Args:
        index: over the rows of `item_vectors`.
        item_vectors: (n, E).
        queries: (Q, E) or (Q, I, E).
        gains: Q rows of distinct item rows, ascending; their weights are what each gains.
        k: length of the lists.
        exclude: Q rows of item rows to leave out, those that gain among them or not.
    """
    assert gains.weights is not None
    query, row, gain = gains.owners().numpy(), gains.values.numpy(), gains.weights.numpy()
    if exclude is not None:
        size = len(item_vectors)
        hidden = exclude.owners().numpy() * size + exclude.values.numpy()
        kept = ~is_among(query * size + row, hidden)
        query, row, gain = query[kept], row[kept], gain[kept]
    scores, found = search(index, queries, k, _with_losers(exclude, query, row, gain, len(gains)))
    own = scored(queries, item_vectors, query, row) + gain
    # What does not reach the last place of a full list need not be put in order.
    reaches = own >= scores[:, -1].numpy()[query]
    more_scores, more = top_of_pairs(
        query[reaches],
        row[reaches],
        own[reaches],
        num_queries=len(gains),
        num_rows=len(item_vectors),
        k=k,
    )
    both = torch.cat([scores, torch.from_numpy(more_scores)], 1)
    return merged(both, torch.cat([found, torch.from_numpy(more)], 1), k)


def joined(first: Jagged, second: Jagged) -> Jagged:
    """Return the sums of two gains of the same queries, distinct item rows, ascending."""
    assert first.weights is not None
    assert second.weights is not None
    size = 1 + max(int(one.values.max()) if len(one.values) else 0 for one in (first, second))
    keys = torch.cat([one.owners() * size + one.values for one in (first, second)])
    pairs, place = keys.unique(return_inverse=True)
    weights = torch.zeros(len(pairs)).index_add(
        0, place, torch.cat([first.weights, second.weights])
    )
    row = torch.div(pairs, size, rounding_mode="floor")
    counts = torch.bincount(row, minlength=len(first))
    return Jagged(pairs % size, F.pad(counts.cumsum(0), (1, 0)), weights)


def _with_losers(
    exclude: Jagged | None, query: Ints, row: Ints, gain: Floats, num_queries: int
) -> Jagged | None:
    """Return what the index is not asked for: what is left out, and what loses."""
    loses = gain < 0
    if not loses.any():
        return exclude
    losers = Jagged.of_lengths(row[loses], np.bincount(query[loses], minlength=num_queries))
    return losers if exclude is None else row_by_row(exclude, losers)


def scored(queries: Tensor, item_vectors: Tensor, query: Ints, row: Ints) -> Floats:
    """Return the product of each pair, of several interests the best one, (T,)."""
    if queries.ndim == 2:
        return score_pairs(queries, item_vectors, query, row)
    each = [score_pairs(one, item_vectors, query, row) for one in queries.unbind(1)]
    best: Floats = np.max(each, axis=0)
    return best
