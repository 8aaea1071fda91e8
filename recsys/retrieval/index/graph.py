"""Approximate search over a graph of neighbours, whichever library holds the graph.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", TPAMI 2018, https://arxiv.org/abs/1603.09320. A library links and
walks; see `recsys.retrieval.index.approximate` for the rest.

Shape letters: B queries, n items, E width of a vector, D width of what the graph links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import IntegrityError
from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged
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
from recsys.retrieval.index.protocol import Read

with on_first_use():
    from torch import Tensor

LINKS = 32
EF_CONSTRUCTION = 200
_BREADTHS = (64, 128, 256, 512, 1024, 2048)
_EF = "ef"


class Graph(Protocol):
    """Links between n points of width D, held by a library."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""

    def search(
        self, queries: Floats, depth: int, breadth: int, threads: int
    ) -> tuple[Floats, Ints]:
        """Return scores and rows (B, depth), row -1 where fewer were found, for queries (B, D).

        A score is the inner product, or minus half the squared distance. `breadth`, at least
        `depth`, is how many candidates a walk keeps.
        """

    def to_bytes(self) -> bytes:
        """Return what the library reads again."""


@runtime_checkable
class FilteredGraph(Graph, Protocol):
    """A graph whose library can pass over points on its walk."""

    def search_passing(
        self, queries: Floats, depth: int, breadth: int, threads: int, passes: NDArray[np.bool_]
    ) -> tuple[Floats, Ints]:
        """Return what `search` does, of the points that `passes` (n,) alone."""


class GraphLibrary(Protocol):
    """One library of such graphs; importing it is left until it is used."""

    @property
    def name(self) -> str:
        """Of the library, as it is written in messages and by `recsys export --to`."""

    @property
    def module(self) -> str:
        """What is imported."""

    @property
    def distribution(self) -> str:
        """What is installed."""

    @property
    def extra(self) -> str | None:
        """The engine's extra that installs it; None: it comes with the engine."""

    def build(self, points: Floats, metric: Metric, threads: int) -> Graph:
        """Return the graph of points (n, D): `LINKS` a point, `EF_CONSTRUCTION` wide.

        With one thread the same points give the same bytes.
        """

    def read(self, data: bytes, metric: Metric) -> Graph:
        """Return the graph that `Graph.to_bytes` wrote; `data` must have been verified."""


class GraphIndex(ApproximateIndex):
    """A walk through links, whose breadth is never below twice the number of items asked for."""

    def __init__(
        self,
        graph: Graph,
        vectors: Tensor,
        breadth: int,
        geometry: Geometry = "sphere",
        library: str = "a library",
    ) -> None:
        super().__init__(vectors, geometry, Effort(breadth))
        self.graph = graph
        self.name = f"HNSW by {library}"

    def ladder(self) -> Ladder:
        """See `ApproximateIndex`."""
        return Ladder(_EF, _BREADTHS)

    def held_bytes(self, effort: Effort) -> int:
        """The vectors and two rows of links a point are in the graph."""
        return len(self.graph.to_bytes())

    def facts(self) -> dict[str, Any]:
        """See `ApproximateIndex`."""
        return {
            "graph_metric": metric_of(self.geometry),
            "graph_dim": self.graph.shape[1],
            "links": LINKS,
            "ef_construction": EF_CONSTRUCTION,
        }

    def find(self, points: Floats, depth: int, threads: int) -> tuple[Floats, Ints]:
        """See `ApproximateIndex`."""
        return self.graph.search(points, depth, max(self.effort.breadth, 2 * depth), threads)


class FilteredGraphIndex(GraphIndex):
    """A `GraphIndex` whose library filters while it walks; see `FilteredIndex`.

    The walk still goes through what does not pass, and keeps the wider a margin the less does.
    """

    def search_passing(
        self, queries: Tensor, k: int, passes: Tensor, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best of those that pass; see `FilteredIndex.search_passing`."""
        graph, wanted = self.graph, passes.numpy()
        assert isinstance(graph, FilteredGraph)
        left = int(passes.sum())

        def find(points: Floats, depth: int, threads: int) -> tuple[Floats, Ints]:
            breadth = _widened(max(self.effort.breadth, 2 * depth), left, len(self))
            return graph.search_passing(points, depth, breadth, threads, wanted)

        return self._by_depth(queries, k, exclude, find)

    def candidates(self, k: int, num_passing: int) -> int:
        """See `FilteredIndex.candidates`."""
        return _widened(max(self.effort.breadth, 2 * k), num_passing, len(self))


@dataclass(frozen=True)
class GraphBackend(ApproximateBackend):
    """The backend around a library of graphs; see `Backend`."""

    library: GraphLibrary

    @property
    def package(self) -> Package:
        """The library's."""
        library = self.library
        return Package(library.name, library.module, library.distribution, library.extra)

    @property
    def export_name(self) -> str:
        """The library's name."""
        return self.library.name

    @property
    def file(self) -> str:
        """What the graph is written to, next to the vectors."""
        return f"index.{self.library.name}"

    def index_of(self, vectors: Tensor, geometry: Geometry, threads: int = 1) -> GraphIndex:
        """See `ApproximateBackend`."""
        points = linked(vectors, geometry).contiguous().numpy()
        graph = self.library.build(points, metric_of(geometry), threads)
        return _index_over(graph, vectors, _BREADTHS[0], geometry, self.library.name)

    def write(self, folder: Path, index: GraphIndex) -> dict[str, Any]:
        """Write the graph."""
        (folder / self.file).write_bytes(index.graph.to_bytes())
        return {}

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> GraphIndex:
        """See `ApproximateBackend`."""
        self.require()
        geometry: Geometry = facts.get("geometry", "sphere")
        graph = self.library.read(read(self.file), metric_of(geometry))
        points = linked(vectors, geometry)
        if graph.shape != tuple(points.shape):
            raise IntegrityError(
                f"index/{self.file}: a graph of {graph.shape[0]} x {graph.shape[1]}, the vectors "
                f"are {len(points)} x {points.shape[1]}"
            )
        breadth = effort_of(facts, _EF).breadth
        return _index_over(graph, vectors, breadth, geometry, self.library.name)


def _index_over(
    graph: Graph, vectors: Tensor, breadth: int, geometry: Geometry, library: str
) -> GraphIndex:
    filters = isinstance(graph, FilteredGraph)
    kind = FilteredGraphIndex if filters else GraphIndex
    return kind(graph, vectors, breadth, geometry, library)


def _widened(breadth: int, num_passing: int, size: int) -> int:
    """Return how wide a walk has to be so that it keeps `breadth` items that pass."""
    return min(size, -(-breadth * size // max(1, num_passing)))
