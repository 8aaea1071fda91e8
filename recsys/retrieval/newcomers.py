"""Shares of pairs for items without a training row: those of the items that they are most like.

    P_iv = mean of P_iu over the `NEIGHBOURS` known items u whose vectors have the largest cosine
    with that of v

A model whose items are functions of their metadata knows what a new item is like before anybody
has chosen it. Where it does not, all new items have one vector, and nothing is lent.
"""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from recsys.retrieval.follow import Matrix, no_entries
from recsys.retrieval.topk import exact_topk

LOG = logging.getLogger(__name__)
NEIGHBOURS = 10
MOST_PAIRS = 20_000_000_000
"""Pairs of a new and a known item that are compared: minutes of one thread."""
_AT_ONCE = 4096


def lent_shares(shares: Matrix, known: NDArray[np.bool_], vectors: Tensor) -> Matrix:
    """Return what the new items get, (n_items, n_items) float32 CSR: row first, as `shares`.

    Args:
        shares: (n_items, n_items) what followed each item.
        known: (n_items,) which items have a training row.
        vectors: (n_items, E).
    """
    new, old = np.flatnonzero(~known), np.flatnonzero(known)
    if not len(new) or not len(old) or _all_alike(vectors[torch.from_numpy(new)]):
        return no_entries(shares.shape)
    if len(new) * len(old) > MOST_PAIRS:
        LOG.warning(
            f"memory: {len(new):,} items have no training row, too many to find what each is like: "
            "they have no share of pairs"
        )
        return no_entries(shares.shape)
    directions = F.normalize(vectors, dim=1)
    of_old = directions[torch.from_numpy(old)]
    count = min(NEIGHBOURS, len(old))
    nearest = [
        exact_topk(directions[rows], of_old, count)[1]
        for rows in torch.from_numpy(new).split(_AT_ONCE)
    ]
    lenders = old[torch.cat(nearest).numpy().ravel()].astype(np.int32)
    takers = np.repeat(new.astype(np.int32), count)
    weight = np.full(len(takers), 1 / count, np.float32)
    lends = sparse.coo_array((weight, (lenders, takers)), shape=shares.shape).tocsr()
    return (shares @ lends).tocsr()


def _all_alike(vectors: Tensor) -> bool:
    """Whether several vectors (N, E) are one, up to rounding."""
    return len(vectors) > 1 and bool(torch.allclose(vectors, vectors[:1], atol=1e-6))
