"""Inverted lists by faiss: vectors in the cells of k-means, of which a search opens the nearest.

Jegou et al., "Product Quantization for Nearest Neighbor Search", TPAMI 2011, section IV. A list
holds vectors as they are or codes of them; of codes the best candidates are scored again by the
vectors that are kept beside, in `vectors.safetensors`.

Shape letters: B queries, n items, D width of what faiss is given, L lists, K depth of a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recsys.core.errors import IntegrityError
from recsys.core.imports import on_first_use
from recsys.layers.choices import Geometry
from recsys.retrieval.index.approximate import (
    ApproximateBackend,
    ApproximateIndex,
    Floats,
    Ints,
    Metric,
    Package,
    linked,
    metric_of,
)
from recsys.retrieval.index.effort import Effort, Ladder, effort_of
from recsys.retrieval.index.faiss_threads import faiss_threads
from recsys.retrieval.index.protocol import Read

with on_first_use():
    from torch import Tensor

FILE = "index.faiss"
_NPROBE = "nprobe"
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
RERANKS = (1, 2, 4, 8, 16, 32, 64)
_LEAST_A_LIST, _POINTS_A_LIST = 39, 64
"""Vectors for each cell: how many there are at least, as faiss asks, and how many train it. With 39
a search of as many lists finds one part in a hundred less."""
_TRAINED_WITH = 65_536
"""Vectors that a code is trained with at most."""
_LEAST_TRAINED_WITH = 16
"""Vectors are repeated up to this: a product code has as many values."""
_ROUNDS = 10
_CANDIDATES_AT_ONCE = 1 << 22
SCANNED = 8
"""How many times the items asked for the opened lists have to hold, on average."""


class Cells(Protocol):
    """How the vectors of a list are held."""

    @property
    def name(self) -> str:
        """What `recsys export --to` and messages call it."""

    @property
    def multiple(self) -> int:
        """Of which the width of a code is one."""

    @property
    def scanned_a_candidate(self) -> float | None:
        """Codes that are scanned while one candidate is scored again; None: vectors, not codes."""

    def transform(self, given: int, width: int) -> Any:
        """Return what faiss does to vectors (n, given) first, to (n, width); None: nothing."""

    def empty(self, quantizer: Any, width: int, lists: int, metric: Any) -> Any:
        """Return the faiss index, without vectors."""

    def parameters(self, nprobe: int) -> Any:
        """Return what faiss is given for a search."""

    def facts(self, width: int) -> dict[str, Any]:
        """Return what a reader wants to know of the codes."""


def filled(given: int, width: int) -> Any:
    """Return what adds zeros behind, so that queries are asked as they are; None: no need."""
    import faiss

    remap: Any = faiss.RemapDimensionsTransform
    return None if given == width else remap(given, width, False)


def lists_for(num_items: int) -> int:
    """Return L: about four times the root of n, fewer where k-means would have too few points."""
    wanted = min(4 * math.sqrt(num_items), num_items / _LEAST_A_LIST)
    return int(2 ** max(0, round(math.log2(max(1.0, wanted)))))


class ListsIndex(ApproximateIndex):
    """Lists that are opened, and candidates that are scored again; see `ApproximateIndex`."""

    def __init__(
        self, lists: Any, cells: Cells, vectors: Tensor, geometry: Geometry, effort: Effort
    ) -> None:
        import faiss

        super().__init__(vectors, geometry, effort)
        self.lists = lists
        self.cells = cells
        self.name = f"{cells.name} by faiss"
        self._points: Floats = linked(vectors, geometry).contiguous().numpy()
        self._ivf: Any = faiss.extract_index_ivf(lists)

    def ladder(self) -> Ladder:
        """See `ApproximateIndex`."""
        probes = (*(one for one in PROBES if one < self._ivf.nlist), self._ivf.nlist)
        scanned, a_list = self.cells.scanned_a_candidate, len(self) / self._ivf.nlist
        if scanned is None:
            return Ladder(_NPROBE, probes)
        return Ladder(
            _NPROBE,
            probes,
            RERANKS,
            lambda effort: effort.breadth * a_list / scanned + 10 * effort.rerank,
        )

    def held_bytes(self, effort: Effort) -> int:
        """Lists and centroids, and the vectors where candidates are scored again."""
        ivf, ids = self._ivf, 8
        codes = len(self) * (ivf.code_size + ids) + ivf.nlist * ivf.d * 4
        return int(codes + (self._points.nbytes if effort.rerank > 1 else 0))

    def facts(self) -> dict[str, Any]:
        """See `ApproximateIndex`."""
        return {
            "lists": int(self._ivf.nlist),
            "index_metric": metric_of(self.geometry),
            "index_dim": self.lists.d,
            **self.cells.facts(self._ivf.d),
        }

    def find(self, points: Floats, depth: int, threads: int) -> tuple[Floats, Ints]:
        """See `ApproximateIndex`."""
        nlist = self._ivf.nlist
        wide = math.ceil(SCANNED * depth * nlist / len(self))
        nprobe = min(nlist, max(self.effort.breadth, wide))
        is_exact = self.cells.scanned_a_candidate is None
        candidates = depth if is_exact else min(len(self), depth * self.effort.rerank)
        parameters = self._parameters(nprobe)
        parts, at_once = [], max(1, _CANDIDATES_AT_ONCE // candidates)
        for start in range(0, max(1, len(points)), at_once):
            part = points[start : start + at_once]
            with faiss_threads(threads):
                scores, rows = self.lists.search(part, candidates, params=parameters)
                if not is_exact:
                    scores, rows = self._scored(part, rows, depth)
            parts.append((scores / -2 if self.geometry == "ball" else scores, rows))
        scores, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
        return scores, rows

    def _parameters(self, nprobe: int) -> Any:
        """Return what this index is given for a search."""
        import faiss

        own = self.cells.parameters(nprobe)
        if not isinstance(self.lists, faiss.IndexPreTransform):
            return own
        outer: Any = faiss.SearchParametersPreTransform()
        outer.index_params = own
        outer.kept_alive = own  # faiss has a pointer alone
        return outer

    def _scored(self, points: Floats, rows: Ints, depth: int) -> tuple[Floats, Ints]:
        """Return the best `depth` of candidates (B, C), by their vectors."""
        import faiss

        score = {
            "inner_product": faiss.knn_inner_products_by_idx,  # type: ignore[attr-defined]
            "l2": faiss.knn_L2sqr_by_idx,  # type: ignore[attr-defined]
        }[metric_of(self.geometry)]
        count, candidates = rows.shape
        scores = np.empty((count, depth), np.float32)
        found = np.empty((count, depth), np.int64)
        pointer: Any = faiss.swig_ptr
        score(
            pointer(points),
            pointer(self._points),
            pointer(rows),
            points.shape[1],
            count,
            len(self._points),
            candidates,
            depth,
            pointer(scores),
            pointer(found),
            candidates,
        )
        return scores, found


@dataclass(frozen=True)
class ListsBackend(ApproximateBackend):
    """The backend of one kind of cells; see `Backend`."""

    cells: Cells

    @property
    def package(self) -> Package:
        """Comes with the engine."""
        return Package("faiss", "faiss", "faiss-cpu", None)

    @property
    def export_name(self) -> str:
        """The name of the cells."""
        return self.cells.name

    def index_of(self, vectors: Tensor, geometry: Geometry, threads: int = 1) -> ListsIndex:
        """See `ApproximateBackend`."""
        points = linked(vectors, geometry).contiguous().numpy()
        with faiss_threads(threads):
            lists = _built(self.cells, points, metric_of(geometry))
        return ListsIndex(lists, self.cells, vectors, geometry, Effort(PROBES[0]))

    def write(self, folder: Path, index: ListsIndex) -> dict[str, Any]:
        """Write the lists."""
        import faiss

        (folder / FILE).write_bytes(faiss.serialize_index(index.lists).tobytes())
        return {}

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> ListsIndex:
        """See `ApproximateBackend`."""
        import faiss

        geometry: Geometry = facts.get("geometry", "sphere")
        lists = faiss.deserialize_index(np.frombuffer(read(FILE), np.uint8))
        points = linked(vectors, geometry)
        if (lists.ntotal, lists.d) != tuple(points.shape):
            raise IntegrityError(
                f"index/{FILE}: lists of {lists.ntotal} x {lists.d}, the vectors are "
                f"{len(points)} x {points.shape[1]}"
            )
        return ListsIndex(lists, self.cells, vectors, geometry, effort_of(facts, _NPROBE))


def _built(cells: Cells, points: Floats, metric: Metric) -> Any:
    """Return the faiss index over points (n, D)."""
    import faiss

    kind = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]
    given = points.shape[1]
    width = -(-given // cells.multiple) * cells.multiple
    before = cells.transform(given, width)
    ready = points if before is None else before.apply(points)
    flat: Any = faiss.IndexFlat(width, kind)
    count = lists_for(len(points))
    means: Any = faiss.Clustering(width, count)
    means.niter, means.seed = _ROUNDS, 0
    means.min_points_per_centroid, means.max_points_per_centroid = 1, _POINTS_A_LIST
    means.train(ready, flat)
    lists: Any = cells.empty(flat, width, count, kind)
    rows = np.random.default_rng(0).permutation(len(ready))[:_TRAINED_WITH]
    lists.train(ready[np.resize(np.sort(rows), max(len(rows), _LEAST_TRAINED_WITH))])
    lists.add(ready)
    return lists if before is None else faiss.IndexPreTransform(before, lists)
