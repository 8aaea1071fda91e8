"""A tree of cells and codes by ScaNN, which scores the best candidates by their vectors.

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020,
https://arxiv.org/abs/1908.10396. The library draws anew at each build: two builds of the same
vectors differ.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.core.errors import IntegrityError
from recsys.core.imports import on_first_use
from recsys.layers.choices import Geometry
from recsys.retrieval.index.approximate import (
    ApproximateBackend,
    ApproximateIndex,
    Floats,
    Ints,
    Package,
    linked,
    metric_of,
)
from recsys.retrieval.index.effort import Effort, Ladder, effort_of
from recsys.retrieval.index.faiss_lists import PROBES, RERANKS, SCANNED, lists_for
from recsys.retrieval.index.protocol import Read

with on_first_use():
    from torch import Tensor

FOLDER = "scann"
"""Of the library's files, next to the vectors: what `load_searcher` takes."""
_LEAVES = "leaves_to_search"
_MEASURES = {"inner_product": "dot_product", "l2": "squared_l2"}
_BRUTE_FORCE_BELOW = 1_000
_NUMBERS = 2
"""Of a vector in four bits."""
_SHAPING = 0.2
"""What the authors' examples have: errors along a vector weigh more than those across."""
_POINTS_A_LEAF = 64
_SCANNED_A_CANDIDATE = 50


class ScannIndex(ApproximateIndex):
    """Leaves that are searched and candidates that are scored again; see `ApproximateIndex`."""

    name = "ScaNN"

    def __init__(self, searcher: Any, vectors: Tensor, geometry: Geometry, effort: Effort) -> None:
        super().__init__(vectors, geometry, effort)
        self.searcher = searcher
        self._width = linked(vectors[:1], geometry).shape[1]

    @property
    def leaves(self) -> int:
        """How many there are; 1: all is scored."""
        return 1 if len(self) < _BRUTE_FORCE_BELOW else lists_for(len(self))

    def ladder(self) -> Ladder:
        """See `ApproximateIndex`."""
        probes = (*(one for one in PROBES if one < self.leaves), self.leaves)
        a_leaf = len(self) / self.leaves
        return Ladder(
            _LEAVES,
            probes,
            RERANKS,
            lambda effort: effort.breadth * a_leaf / _SCANNED_A_CANDIDATE + 10 * effort.rerank,
        )

    def held_bytes(self, effort: Effort) -> int:
        """Codes, centroids, and the vectors: the library keeps them whatever is asked."""
        codes = -(-self._width // _NUMBERS) // 2 if self.leaves > 1 else 0
        return len(self) * (codes + 4 + 4 * self._width) + self.leaves * self._width * 4

    def facts(self) -> dict[str, Any]:
        """See `ApproximateIndex`."""
        return {
            "leaves": self.leaves,
            "index_metric": metric_of(self.geometry),
            "index_dim": self._width,
            "anisotropic_quantization_threshold": _SHAPING,
        }

    def find(self, points: Floats, depth: int, threads: int) -> tuple[Floats, Ints]:
        """See `ApproximateIndex`."""
        if len(points) == 0:
            return np.zeros((0, depth), np.float32), np.zeros((0, depth), np.int64)
        wide = math.ceil(SCANNED * depth * self.leaves / len(self))
        asked = {
            "final_num_neighbors": depth,
            "pre_reorder_num_neighbors": min(len(self), depth * self.effort.rerank),
            "leaves_to_search": min(self.leaves, max(self.effort.breadth, wide)),
        }
        if threads > 1:
            self.searcher.set_num_threads(threads)
            rows, scores = self.searcher.search_batched_parallel(points, **asked)
        else:
            rows, scores = self.searcher.search_batched(points, **asked)
        missing = np.isnan(scores)  # the library fills up with row 0 and no score
        rows = np.where(missing, -1, rows.astype(np.int64))
        if self.geometry == "ball":
            scores = scores / -2
        return np.where(missing, np.float32(-np.inf), scores), rows


class Scann(ApproximateBackend):
    """See `Backend`."""

    export_name = "scann"

    @property
    def package(self) -> Package:
        """An extra of the engine's."""
        return Package("ScaNN", "scann", "scann", "scann")

    def index_of(self, vectors: Tensor, geometry: Geometry, threads: int = 1) -> ScannIndex:
        """See `ApproximateBackend`."""
        from scann import scann_ops_pybind

        points = linked(vectors, geometry).contiguous().numpy()
        builder = scann_ops_pybind.builder(points, 10, _MEASURES[metric_of(geometry)])
        if len(points) < _BRUTE_FORCE_BELOW:
            builder = builder.score_brute_force()
        else:
            leaves = lists_for(len(points))
            builder = builder.tree(
                num_leaves=leaves,
                num_leaves_to_search=1,
                training_sample_size=min(len(points), leaves * _POINTS_A_LEAF),
                quantize_centroids=False,
            )
            builder = builder.score_ah(_NUMBERS, anisotropic_quantization_threshold=_SHAPING)
            builder = builder.reorder(100)
        builder.set_n_training_threads(threads)
        return ScannIndex(builder.build(), vectors, geometry, Effort(PROBES[0]))

    def write(self, folder: Path, index: ScannIndex) -> dict[str, Any]:
        """Write the library's files into a folder of their own; return which."""
        (folder / FOLDER).mkdir()
        index.searcher.serialize(str(folder / FOLDER), relative_path=True)
        return {"files": sorted(path.name for path in (folder / FOLDER).iterdir())}

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> ScannIndex:
        """See `ApproximateBackend`; the library reads files, so they are written aside for it."""
        self.require()
        from scann import scann_ops_pybind

        geometry: Geometry = facts.get("geometry", "sphere")
        width = linked(vectors[:1], geometry).shape[1]
        if (facts["n"], facts["index_dim"]) != (len(vectors), width):
            raise IntegrityError(
                f"index/{FOLDER}: a tree of {facts['n']} x {facts['index_dim']}, the vectors are "
                f"{len(vectors)} x {width}"
            )
        with tempfile.TemporaryDirectory() as folder:
            for name in facts["files"]:
                (Path(folder) / name).write_bytes(read(f"{FOLDER}/{name}"))
            searcher = scann_ops_pybind.load_searcher(folder)
        return ScannIndex(searcher, vectors, geometry, effort_of(facts, _LEAVES))
