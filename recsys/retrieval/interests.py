"""Queries of several vectors: a user's score of an item is the best over the user's interests.

Li et al., "Multi-Interest Network with Dynamic Routing", CIKM 2019, and Cen et al., "Controllable
Multi-Interest Framework for Recommendation", KDD 2020, section 3.3: every interest retrieves, and
the lists are merged by score. An item among the best k by its best interest is among the best k of
that interest, so merging the lists of k is exact where each search is.

Shape letters: B queries, I interests, E width.
"""

import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval.index.protocol import Index


def search(
    index: Index, queries: Tensor, k: int, exclude: Jagged | None = None
) -> tuple[Tensor, Tensor]:
    """Return scores (B, k) and item rows (B, k), best first, ties by the smaller row.

    Short lists end in scores of -inf and rows of -1; see `Index.search`.

    Args:
        index: what is searched.
        queries: (B, E), or (B, I, E): an item's score is the largest over the interests.
        k: length of the lists.
        exclude: B rows of item rows to leave out.
    """
    if queries.ndim == 2:
        return index.search(queries, k, exclude)
    num_queries, interests, _ = queries.shape
    if exclude is not None:
        owner = torch.arange(num_queries, device=queries.device).repeat_interleave(interests)
        exclude = exclude.take(owner)
    scores, rows = index.search(queries.flatten(0, 1), k, exclude)
    return merged(scores.view(num_queries, -1), rows.view(num_queries, -1), k)


def merged(scores: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the best k distinct items of each row of `scores` and `rows` (B, L), -1: no item.

    An item that occurs several times keeps its best score; ties go to the smaller row.
    """
    # By item, then by falling score: a repeat follows its best mention.
    by_score = scores.argsort(dim=1, descending=True, stable=True)
    scores, rows = scores.gather(1, by_score), rows.gather(1, by_score)
    by_row = rows.argsort(dim=1, stable=True)
    scores, rows = scores.gather(1, by_row), rows.gather(1, by_row)
    repeated = torch.zeros_like(rows, dtype=torch.bool)
    repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
    scores = scores.masked_fill(repeated | (rows < 0), -torch.inf)
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    scores, rows = scores.gather(1, best), rows.gather(1, best)
    return scores, rows.masked_fill(scores == -torch.inf, -1)
