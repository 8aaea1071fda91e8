"""How much an index finds of what exact search finds, and the queries that it is measured with."""

import torch
from torch import Tensor

from recsys.layers.geometry import neighbours_of, points_of
from recsys.retrieval.index.protocol import Index, IndexRequest
from recsys.retrieval.topk import exact_topk

MEASURED_QUERIES = 2_000
_ROUNDING = 1e-5
"""Of a score, relative: what arithmetic in another order changes."""
_CHUNK = 64


def recall_against_exact(index: Index, queries: Tensor, vectors: Tensor, k: int) -> float:
    """Return the share of the exact k best that `index` finds, the mean over queries (Q, E).

    Items of one vector are as good as each other: what is found counts where its score is at least
    that of the k-th best.
    """
    k = min(k, len(vectors))
    least = exact_topk(queries, vectors, k)[0][:, -1:]
    found = index.search(queries, k)[1]
    hits = 0
    for start in range(0, len(queries), _CHUNK):
        part = slice(start, start + _CHUNK)
        own = vectors[found[part].clamp(min=0)]
        scores = torch.einsum("qe,qke->qk", queries[part], own)
        enough = scores >= least[part] - _ROUNDING * least[part].abs()
        hits += int((enough & (found[part] >= 0)).sum())
    return hits / found.numel()


def measured_queries(request: IndexRequest) -> Tensor:
    """Return at most `MEASURED_QUERIES` queries; item vectors with noise make up for too few."""
    queries, vectors, geometry = request.queries, request.vectors, request.geometry
    generator = torch.Generator().manual_seed(0)
    missing = MEASURED_QUERIES // 2 - len(queries)
    if missing > 0:
        rows = torch.randint(0, len(vectors), (missing,), generator=generator)
        width = points_of(vectors, geometry).shape[1]
        noise = torch.randn(missing, width, generator=generator) * 0.5 / width**0.5
        queries = torch.cat([queries, neighbours_of(vectors[rows], geometry, noise)])
    order = torch.randperm(len(queries), generator=generator)
    return queries[order[:MEASURED_QUERIES]].contiguous()
