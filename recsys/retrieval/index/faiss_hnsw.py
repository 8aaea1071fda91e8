"""HNSW graphs by faiss; see `recsys.retrieval.index.graph`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.retrieval.index.graph import EF_CONSTRUCTION, LINKS, Floats, Metric


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
        with _threads(threads):
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
        with _threads(threads):
            graph.add(points)
        return FaissGraph(graph)

    def read(self, data: bytes) -> FaissGraph:
        """See `GraphLibrary.read`."""
        import faiss

        return FaissGraph(faiss.deserialize_index(np.frombuffer(data, np.uint8)))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let faiss use `count` threads; of this thread's calls alone."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
