"""HNSW graphs by faiss, behind the `Index` protocol. Malkov and Yashunin 2018, arXiv 1603.09320."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from recsys.core.errors import IntegrityError
from recsys.data.batch import Jagged
from recsys.layers.geometry import Geometry, points_of
from recsys.retrieval.topk import exact_topk

METRICS: dict[Geometry, int] = {
    "sphere": faiss.METRIC_INNER_PRODUCT,
    "biased_sphere": faiss.METRIC_INNER_PRODUCT,
    "dot": faiss.METRIC_INNER_PRODUCT,
    "ball": faiss.METRIC_L2,
}
LINKS = 32
EF_CONSTRUCTION = 200


class HnswIndex:
    """Approximate search; a query that comes out short is answered exactly from the vectors.

    `ef` is the breadth of a search, never below the number of items asked for. In the ball the
    graph links points by their distance: links by inner products lead elsewhere, as a vector
    there is not its own best match.
    """

    def __init__(self, graph: Any, vectors: Tensor, ef: int, geometry: Geometry = "sphere") -> None:
        self.graph = graph
        self.vectors = vectors
        self.ef = ef
        self.geometry = geometry

    @classmethod
    def build(cls, vectors: Tensor, *, ef: int = 128, geometry: Geometry = "sphere") -> "HnswIndex":
        """Build the graph over vectors (n, E) float32."""
        points = _linked(vectors, geometry).contiguous().numpy()
        graph = faiss.IndexHNSWFlat(points.shape[1], LINKS, METRICS[geometry])
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        graph.add(points)
        return cls(graph, vectors, ef, geometry)

    @classmethod
    def from_bytes(
        cls, data: bytes, vectors: Tensor, ef: int, geometry: Geometry = "sphere"
    ) -> "HnswIndex":
        """Read what `save` wrote; `data` must have been verified.

        Raises:
            IntegrityError: the graph is not one over `vectors`.
        """
        graph = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        points = _linked(vectors, geometry)
        if (graph.ntotal, graph.d) != tuple(points.shape):
            raise IntegrityError(
                f"index/index.faiss: a graph of {graph.ntotal} x {graph.d}, the vectors are "
                f"{len(points)} x {points.shape[1]}"
            )
        return cls(graph, vectors, ef, geometry)

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def is_exact(self) -> bool:
        """Return False."""
        return False

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best; see `Index.search`."""
        hidden = exclude.lengths() if exclude is not None else torch.zeros(len(queries))
        scores = torch.full((len(queries), k), -torch.inf)
        rows = torch.full((len(queries), k), -1)
        # Queries that hide many items need deeper searches: group them by depth.
        depth = (k + hidden.long()).clamp(max=len(self))
        for bits in torch.unique(torch.log2(depth.float()).ceil()).tolist():
            group = (torch.log2(depth.float()).ceil() == bits).nonzero().flatten()
            seen = exclude.take(group) if exclude is not None else None
            found = self._search(queries[group], int(depth[group].max()), k, seen)
            scores[group], rows[group] = found
        return self._complete(queries, k, exclude, scores, rows)

    def _search(
        self, queries: Tensor, depth: int, k: int, exclude: Jagged | None
    ) -> tuple[Tensor, Tensor]:
        parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
            efSearch=max(self.ef, 2 * depth)
        )
        asked = _linked(queries, self.geometry).contiguous().numpy()
        raw_scores, raw_rows = self.graph.search(asked, depth, params=parameters)
        rows = torch.from_numpy(raw_rows)
        scores = torch.from_numpy(raw_scores)
        if self.geometry == "ball":  # faiss gives squared distances
            scores = scores / -2
        bad = rows < 0
        if exclude is not None:
            bad |= _excluded(rows, exclude, len(self))
        scores = scores.masked_fill(bad, -torch.inf)
        rows = rows.masked_fill(bad, -1)
        # Sort by row, then stably by score: ties go to the smaller row.
        rows, order = rows.sort(dim=1)
        scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
        rows = rows.gather(1, order)
        short = max(0, k - depth)
        pad = torch.nn.functional.pad
        return (
            pad(scores[:, :k], (0, short), value=-torch.inf),
            pad(rows[:, :k], (0, short), value=-1),
        )

    def _complete(
        self, queries: Tensor, k: int, exclude: Jagged | None, scores: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A list with fewer than k items may have missed some: answer it exactly."""
        short = (rows[:, -1] < 0).nonzero().flatten()
        if len(short):
            seen = exclude.take(short) if exclude is not None else None
            scores[short], rows[short] = exact_topk(queries[short], self.vectors, k, seen)
        return scores, rows

    def save(self, folder: Path) -> None:
        """Write index.faiss into `folder`."""
        (folder / "index.faiss").write_bytes(faiss.serialize_index(self.graph).tobytes())


def _linked(vectors: Tensor, geometry: Geometry) -> Tensor:
    """Return what the graph is built over and asked with."""
    return points_of(vectors, geometry) if geometry == "ball" else vectors


def _excluded(rows: Tensor, exclude: Jagged, num_items: int) -> Tensor:
    """Whether each of rows (B, D) is among its query's exclusions."""
    query = torch.repeat_interleave(torch.arange(len(exclude)), exclude.lengths())
    hidden = torch.unique(query * num_items + exclude.values)
    wanted = torch.arange(len(rows)).unsqueeze(1) * num_items + rows.clamp(min=0)
    return torch.isin(wanted, hidden)
