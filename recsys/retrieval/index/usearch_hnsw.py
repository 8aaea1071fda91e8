"""HNSW graphs by usearch; see `recsys.retrieval.index.graph`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import IntegrityError
from recsys.retrieval.index.approximate import Floats, Metric
from recsys.retrieval.index.graph import EF_CONSTRUCTION, LINKS

_METRICS = {"inner_product": "ip", "l2": "l2sq"}


@dataclass(frozen=True)
class UsearchGraph:
    """A `usearch.index.Index` of float32 vectors whose keys are their rows; see `Graph`."""

    graph: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self.graph), int(self.graph.ndim)

    def search(
        self, queries: Floats, depth: int, breadth: int, threads: int
    ) -> tuple[Floats, NDArray[np.int64]]:
        """See `Graph.search`."""
        from usearch.index import MetricKind

        if len(queries) == 0:
            return np.zeros((0, depth), np.float32), np.zeros((0, depth), np.int64)
        self.graph.expansion_search = breadth
        found = self.graph.search(queries, depth, threads=threads)
        # One query comes back without an axis for queries, and cut to what was found.
        keys, distances = np.atleast_2d(found.keys), np.atleast_2d(found.distances)
        width = keys.shape[1]
        counts = getattr(found, "counts", np.array([width]))
        there = np.arange(width) < counts[:, None]
        is_squared = self.graph.metric_kind == MetricKind.L2sq
        distances = np.where(there, distances, np.inf)
        products = distances / -2 if is_squared else 1 - distances
        rows = np.full((len(queries), depth), -1)
        rows[:, :width] = np.where(there, keys.astype(np.int64), -1)
        scores = np.full((len(queries), depth), -np.inf, np.float32)
        scores[:, :width] = products
        return scores, rows

    def to_bytes(self) -> bytes:
        """See `Graph.to_bytes`."""
        return bytes(self.graph.save())


class Usearch:
    """See `GraphLibrary`."""

    name = module = distribution = "usearch"
    extra = "ann"

    def build(self, points: Floats, metric: Metric, threads: int) -> UsearchGraph:
        """See `GraphLibrary.build`."""
        from usearch.index import Index

        graph = Index(
            ndim=points.shape[1],
            metric=_METRICS[metric],
            dtype="f32",
            connectivity=LINKS,
            expansion_add=EF_CONSTRUCTION,
            enable_key_lookups=False,
        )
        graph.add(np.arange(len(points), dtype=np.uint64), points, threads=threads)
        return UsearchGraph(graph)

    def read(self, data: bytes, metric: Metric) -> UsearchGraph:
        """See `GraphLibrary.read`."""
        from usearch.index import Index

        try:
            graph = Index.restore(data, enable_key_lookups=False)
        except (ValueError, RuntimeError) as error:
            raise IntegrityError(f"index/index.usearch: no graph of usearch ({error})") from None
        return UsearchGraph(graph)
