"""Approximate search over a graph of neighbours, whichever library holds the graph.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", TPAMI 2018, https://arxiv.org/abs/1603.09320. A library links and
walks; what a list may hold, in which order, and how good it has to be is decided here, for all
libraries.

Shape letters: B queries, n items, E width of a vector, D width of what the graph links, K depth
of a search.
"""

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import ConfigError, IntegrityError, UserError
from recsys.data.batch import Jagged
from recsys.layers.geometry import Geometry, points_of
from recsys.retrieval.index.protocol import IndexRequest, Read
from recsys.retrieval.index.recall import measured_queries, recall_against_exact
from recsys.retrieval.topk import exact_topk

LINKS = 32
EF_CONSTRUCTION = 200
_BREADTHS = (64, 128, 256, 512, 1024, 2048)
Metric = Literal["inner_product", "l2"]
Floats = NDArray[np.float32]


class Graph(Protocol):
    """Links between n points of width D, held by a library."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""

    def search(
        self, queries: Floats, depth: int, breadth: int, threads: int
    ) -> tuple[Floats, NDArray[np.int64]]:
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
    ) -> tuple[Floats, NDArray[np.int64]]:
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

    def read(self, data: bytes) -> Graph:
        """Return the graph that `Graph.to_bytes` wrote; `data` must have been verified."""


class GraphIndex:
    """Approximate search; a query that comes out short is answered exactly from the vectors.

    `breadth` is that of a search, never below the number of items asked for. In the ball the
    graph links points by their distance: links by inner products lead elsewhere, as a vector
    there is not its own best match.
    """

    def __init__(
        self, graph: Graph, vectors: Tensor, breadth: int, geometry: Geometry = "sphere"
    ) -> None:
        self.graph = graph
        self.vectors = vectors
        self.breadth = breadth
        self.geometry = geometry

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best; see `Index.search`."""
        found = self._by_depth(queries, k, exclude, None)
        return self._complete(queries, k, exclude, *found)

    def _by_depth(
        self, queries: Tensor, k: int, exclude: Jagged | None, passes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        hidden = exclude.lengths() if exclude is not None else torch.zeros(len(queries))
        scores = torch.full((len(queries), k), -torch.inf)
        rows = torch.full((len(queries), k), -1)
        # Queries that hide many items need deeper searches: group them by depth.
        depth = (k + hidden.long()).clamp(max=len(self))
        for bits in torch.unique(torch.log2(depth.float()).ceil()).tolist():
            group = (torch.log2(depth.float()).ceil() == bits).nonzero().flatten()
            seen = exclude.take(group) if exclude is not None else None
            found = self._search(queries[group], int(depth[group].max()), k, seen, passes)
            scores[group], rows[group] = found
        return scores, rows

    def _search(
        self,
        queries: Tensor,
        depth: int,
        k: int,
        exclude: Jagged | None,
        passes: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        asked = linked(queries, self.geometry).contiguous().numpy()
        breadth, threads = max(self.breadth, 2 * depth), torch.get_num_threads()
        if passes is None:
            raw_scores, raw_rows = self.graph.search(asked, depth, breadth, threads)
        else:
            assert isinstance(self.graph, FilteredGraph)
            breadth = _widened(breadth, int(passes.sum()), len(self))
            raw_scores, raw_rows = self.graph.search_passing(
                asked, depth, breadth, threads, passes.numpy()
            )
        rows, scores = torch.from_numpy(raw_rows), torch.from_numpy(raw_scores)
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


class FilteredGraphIndex(GraphIndex):
    """A `GraphIndex` whose library filters while it walks; see `FilteredIndex`.

    The walk still goes through what does not pass, and keeps the wider a margin the less does.
    """

    def search_passing(
        self, queries: Tensor, k: int, passes: Tensor, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best of those that pass; see `FilteredIndex.search_passing`."""
        return self._by_depth(queries, k, exclude, passes)

    def candidates(self, k: int, num_passing: int) -> int:
        """See `FilteredIndex.candidates`."""
        return _widened(max(self.breadth, 2 * k), num_passing, len(self))


@dataclass(frozen=True)
class GraphBackend:
    """The backend around a library of graphs; see `Backend`."""

    library: GraphLibrary

    @property
    def export_name(self) -> str:
        """The library's name."""
        return self.library.name

    @property
    def distribution(self) -> str:
        """The library's."""
        return self.library.distribution

    @property
    def file(self) -> str:
        """What the graph is written to, next to the vectors."""
        return f"index.{self.library.name}"

    def require(self) -> None:
        """Find the library.

        Raises:
            ConfigError: it is not installed.
        """
        if importlib.util.find_spec(self.library.module) is None:
            extra = self.library.extra
            wanted = self.library.distribution if extra is None else f"'recsys-engine[{extra}]'"
            raise ConfigError(
                f"an index by {self.library.name} needs the package {self.library.distribution}, "
                f"which is not installed: pip install {wanted}"
            )

    def build(self, folder: Path, request: IndexRequest) -> dict[str, Any]:
        """Build, find the narrowest search that reaches `min_recall`, write the graph.

        Raises:
            ConfigError: the library is not installed.
            UserError: no breadth reaches it; the figures are in the message.
        """
        self.require()
        started = time.process_time()
        index = self.index_of(request.vectors, request.geometry, request.threads)
        facts = {"build_cpu_seconds": round(time.process_time() - started, 3)}
        facts |= self._measured(index, measured_queries(request), request.min_recall)
        (folder / self.file).write_bytes(index.graph.to_bytes())
        return facts

    def index_of(self, vectors: Tensor, geometry: Geometry, threads: int = 1) -> GraphIndex:
        """Return an index over vectors (n, E) float32, not yet measured."""
        points = linked(vectors, geometry).contiguous().numpy()
        graph = self.library.build(points, _metric(geometry), threads)
        return _index_over(graph, vectors, _BREADTHS[0], geometry)

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> GraphIndex:
        """Return the index over `vectors` that `build` wrote; see `Backend.open`.

        Raises:
            ConfigError: the library is not installed.
            IntegrityError: the graph is not one over `vectors`.
        """
        self.require()
        geometry: Geometry = facts.get("geometry", "sphere")
        graph = self.library.read(read(self.file))
        points = linked(vectors, geometry)
        if graph.shape != tuple(points.shape):
            raise IntegrityError(
                f"index/{self.file}: a graph of {graph.shape[0]} x {graph.shape[1]}, the vectors "
                f"are {len(points)} x {points.shape[1]}"
            )
        return _index_over(graph, vectors, facts["ef"], geometry)

    def _measured(self, index: GraphIndex, queries: Tensor, min_recall: float) -> dict[str, Any]:
        """Widen the search until recall@10 holds; return the measured facts."""
        recall = 0.0
        for index.breadth in _BREADTHS:
            recall = recall_against_exact(index, queries, index.vectors, 10)
            if recall >= min_recall:
                break
        else:
            raise UserError(
                f"HNSW by {self.library.name} reaches recall@10 {recall:.4f} at ef "
                f"{index.breadth} over {len(index)} items, {min_recall} is wanted: lower "
                "min_recall, or use the exact index"
            )
        return {
            "recall_at_10": recall,
            "recall_at_100": recall_against_exact(index, queries, index.vectors, 100),
            "recall_queries": len(queries),
            "ef": index.breadth,
            "graph_metric": _metric(index.geometry),
            "graph_dim": index.graph.shape[1],
            "links": LINKS,
            "ef_construction": EF_CONSTRUCTION,
        }


def _index_over(graph: Graph, vectors: Tensor, breadth: int, geometry: Geometry) -> GraphIndex:
    filters = isinstance(graph, FilteredGraph)
    return (FilteredGraphIndex if filters else GraphIndex)(graph, vectors, breadth, geometry)


def _widened(breadth: int, num_passing: int, size: int) -> int:
    """Return how wide a walk has to be so that it keeps `breadth` items that pass."""
    return min(size, -(-breadth * size // max(1, num_passing)))


def linked(vectors: Tensor, geometry: Geometry) -> Tensor:
    """Return what the graph is built over and asked with: (..., D) of vectors (..., E)."""
    return points_of(vectors, geometry) if geometry == "ball" else vectors


def _metric(geometry: Geometry) -> Metric:
    return "l2" if geometry == "ball" else "inner_product"


def _excluded(rows: Tensor, exclude: Jagged, num_items: int) -> Tensor:
    """Whether each of rows (B, K) is among its query's exclusions."""
    query = torch.repeat_interleave(torch.arange(len(exclude)), exclude.lengths())
    hidden = torch.unique(query * num_items + exclude.values)
    wanted = torch.arange(len(rows)).unsqueeze(1) * num_items + rows.clamp(min=0)
    return torch.isin(wanted, hidden)
