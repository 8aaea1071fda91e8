"""How much an index finds of what exact search finds, and the queries that it is measured with."""

from __future__ import annotations

from recsys.core.imports import on_first_use
from recsys.retrieval.index.protocol import Index, IndexRequest

with on_first_use():
    import torch
    from torch import Tensor

    from recsys.layers.geometry import neighbours_of, points_of
    from recsys.retrieval.topk import exact_topk

MEASURED_QUERIES = 2_000
_ROUNDING = 1e-5
"""Of a score, relative: what arithmetic in another order changes."""
_CHUNK = 64


class Truth:
    """What exact search finds for queries (Q, E) among vectors (n, E), searched once for each k.

    Items of one vector are as good as each other: what is found counts where its score is at least
    that of the k-th best.
    """

    def __init__(self, queries: Tensor, vectors: Tensor) -> None:
        self.queries = queries
        self.vectors = vectors
        self._least: dict[int, Tensor] = {}

    def recall(self, index: Index, k: int) -> float:
        """Return the share of the exact k best that `index` finds, the mean over the queries."""
        k = min(k, len(self.vectors))
        if k not in self._least:
            self._least[k] = exact_topk(self.queries, self.vectors, k)[0][:, -1:]
        least = self._least[k]
        found = index.search(self.queries, k)[1]
        hits = 0
        for start in range(0, len(self.queries), _CHUNK):
            part = slice(start, start + _CHUNK)
            own = self.vectors[found[part].clamp(min=0)]
            scores = torch.einsum("qe,qke->qk", self.queries[part], own)
            enough = scores >= least[part] - _ROUNDING * least[part].abs()
            hits += int((enough & (found[part] >= 0)).sum())
        return hits / found.numel()


def recall_against_exact(index: Index, queries: Tensor, vectors: Tensor, k: int) -> float:
    """Return the share of the exact k best that `index` finds, the mean over queries (Q, E)."""
    return Truth(queries, vectors).recall(index, k)


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
