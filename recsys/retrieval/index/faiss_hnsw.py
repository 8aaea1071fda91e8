"""HNSW graphs by faiss; see `recsys.retrieval.index.graph`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.retrieval.index.approximate import Floats, Metric
from recsys.retrieval.index.faiss_threads import faiss_threads
from recsys.retrieval.index.graph import EF_CONSTRUCTION, LINKS


@dataclass(frozen=True)
class FaissGraph:
    """An `IndexHNSWFlat`; see `Graph`."""

    graph: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return int(self.graph.ntotal), int(self.graph.d)

    def search(
        self, queries: Floats, depth: int, breadth: int, threads: int
    ) -> tuple[Floats, NDArray[np.int64]]:
        """See `Graph.search`."""
        return self._search(queries, depth, breadth, threads, None)

    def search_passing(
        self, queries: Floats, depth: int, breadth: int, threads: int, passes: NDArray[np.bool_]
    ) -> tuple[Floats, NDArray[np.int64]]:
        """See `FilteredGraph.search_passing`."""
        import faiss

        bits = np.packbits(passes, bitorder="little")
        own = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        return self._search(queries, depth, breadth, threads, own)

    def _search(
        self, queries: Floats, depth: int, breadth: int, threads: int, selector: Any
    ) -> tuple[Floats, NDArray[np.int64]]:
        import faiss

        parameters = faiss.SearchParametersHNSW(efSearch=breadth)  # type: ignore[attr-defined]
        if selector is not None:
            parameters.sel = selector
        with faiss_threads(threads):
            scores, rows = self.graph.search(queries, depth, params=parameters)
        if self.graph.metric_type == faiss.METRIC_L2:  # faiss gives squared distances
            scores = scores / -2
        return scores, rows

    def to_bytes(self) -> bytes:
        """See `Graph.to_bytes`."""
        import faiss

        return faiss.serialize_index(self.graph).tobytes()


class Faiss:
    """See `GraphLibrary`."""

    name = module = "faiss"
    distribution = "faiss-cpu"
    extra = None

    def build(self, points: Floats, metric: Metric, threads: int) -> FaissGraph:
        """See `GraphLibrary.build`."""
        import faiss

        metrics = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
        graph = faiss.IndexHNSWFlat(points.shape[1], LINKS, metrics[metric])
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        with faiss_threads(threads):
            graph.add(points)
        return FaissGraph(graph)

    def read(self, data: bytes, metric: Metric) -> FaissGraph:
        """See `GraphLibrary.read`."""
        import faiss

        return FaissGraph(faiss.deserialize_index(np.frombuffer(data, np.uint8)))
