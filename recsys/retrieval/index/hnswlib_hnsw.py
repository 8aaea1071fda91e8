"""HNSW graphs by hnswlib; see `recsys.retrieval.index.graph`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.core.errors import IntegrityError
from recsys.retrieval.index.approximate import Floats, Ints, Metric
from recsys.retrieval.index.graph import EF_CONSTRUCTION, LINKS

_SPACES = {"inner_product": "ip", "l2": "l2"}
_SEED = 100
_HEADER = 6
"""Numbers at the file's beginning, of 8 bytes; the last are where labels and vectors lie."""


@dataclass(frozen=True)
class HnswlibGraph:
    """A `hnswlib.Index` whose labels are rows; see `Graph`."""

    graph: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return int(self.graph.get_current_count()), int(self.graph.dim)

    def search(
        self, queries: Floats, depth: int, breadth: int, threads: int
    ) -> tuple[Floats, Ints]:
        """See `Graph.search`."""
        shape = (len(queries), depth)
        if len(queries) == 0:
            return np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        self.graph.set_ef(breadth)
        try:
            labels, distances = self.graph.knn_query(queries, k=depth, num_threads=threads)
        except RuntimeError:  # fewer than `depth` can be reached from somewhere
            return np.full(shape, -np.inf, np.float32), np.full(shape, -1)
        is_squared = self.graph.space == _SPACES["l2"]
        scores = distances / -2 if is_squared else 1 - distances
        return scores, labels.astype(np.int64)

    def to_bytes(self) -> bytes:
        """See `Graph.to_bytes`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            self.graph.save_index(str(path))
            return path.read_bytes()


class Hnswlib:
    """See `GraphLibrary`."""

    name = module = distribution = "hnswlib"
    extra = "hnswlib"

    def build(self, points: Floats, metric: Metric, threads: int) -> HnswlibGraph:
        """See `GraphLibrary.build`."""
        import hnswlib

        graph = hnswlib.Index(space=_SPACES[metric], dim=points.shape[1])
        graph.init_index(
            max_elements=len(points), ef_construction=EF_CONSTRUCTION, M=LINKS, random_seed=_SEED
        )
        graph.add_items(points, np.arange(len(points)), num_threads=threads)
        return HnswlibGraph(graph)

    def read(self, data: bytes, metric: Metric) -> HnswlibGraph:
        """See `GraphLibrary.read`; the file says of its width only where a vector ends."""
        import hnswlib

        if len(data) < _HEADER * 8:
            raise IntegrityError("index/index.hnswlib: no graph of hnswlib")
        labels, vectors = np.frombuffer(data, "<u8", _HEADER)[-2:].tolist()
        width = (labels - vectors) // 4
        if not 0 < width < len(data):
            raise IntegrityError("index/index.hnswlib: no graph of hnswlib")
        graph = hnswlib.Index(space=_SPACES[metric], dim=width)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            path.write_bytes(data)
            try:
                graph.load_index(str(path))
            except RuntimeError as error:
                raise IntegrityError(
                    f"index/index.hnswlib: no graph of hnswlib ({error})"
                ) from None
        return HnswlibGraph(graph)
