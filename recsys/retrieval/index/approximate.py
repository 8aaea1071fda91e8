"""What all approximate indexes share, whichever library searches.

A library finds candidates; what a list may hold, in which order, how it is completed and how good
it has to be is decided here.

Shape letters: B queries, n items, E width of a vector, D width of what a library is given, K depth
of a search.
"""

from __future__ import annotations

import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, UserError
from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged
from recsys.layers.choices import Geometry
from recsys.retrieval.index.effort import Effort, Ladder, cheapest
from recsys.retrieval.index.protocol import IndexRequest, Read

with on_first_use():
    import torch
    from torch import Tensor

    from recsys.layers.geometry import points_of
    from recsys.retrieval.index.recall import Truth, measured_queries
    from recsys.retrieval.topk import exact_topk

Metric = Literal["inner_product", "l2"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Find = Callable[[Floats, int, int], tuple[Floats, Ints]]
"""Points (B, D), depth and threads -> scores and rows (B, depth); see `ApproximateIndex.find`."""


class ApproximateIndex(ABC):
    """Search that may miss some; a query that comes out short is answered exactly; see `Index`.

    `effort` is that of a search for ten items; deeper searches do more. In the ball the library
    compares points by their distance: an order of inner products leads elsewhere, as a vector
    there is not its own best match.
    """

    name: str
    """What a message calls it."""

    def __init__(self, vectors: Tensor, geometry: Geometry, effort: Effort) -> None:
        self.vectors = vectors
        self.geometry = geometry
        self.effort = effort

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    @abstractmethod
    def ladder(self) -> Ladder:
        """Return the efforts that are tried."""

    @abstractmethod
    def held_bytes(self, effort: Effort) -> int:
        """Return what the library holds in memory to search with `effort`, in bytes."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return how it was built and what a search needs to be told."""

    @abstractmethod
    def find(self, points: Floats, depth: int, threads: int) -> tuple[Floats, Ints]:
        """Return scores and rows (B, depth), best first, row -1 where fewer were found.

        points (B, D) are queries; a score is the inner product, or minus half the squared distance.
        """

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best; see `Index.search`."""
        found = self._by_depth(queries, k, exclude, self.find)
        return self._complete(queries, k, exclude, *found)

    def _by_depth(
        self, queries: Tensor, k: int, exclude: Jagged | None, find: Find
    ) -> tuple[Tensor, Tensor]:
        """Return the best that `find` gives; lists may be short."""
        if exclude is None:
            return self._search(queries, min(k, len(self)), k, None, find)
        scores = torch.full((len(queries), k), -torch.inf)
        rows = torch.full((len(queries), k), -1)
        # Queries that hide many items need deeper searches: group them by depth.
        depth = (k + exclude.lengths().long()).clamp(max=len(self))
        group_of = torch.log2(depth.float()).ceil()
        for bits in torch.unique(group_of).tolist():
            group = (group_of == bits).nonzero().flatten()
            deepest, hidden = int(depth[group].max()), exclude.take(group)
            found = self._search(queries[group], deepest, k, hidden, find)
            scores[group], rows[group] = found
        return scores, rows

    def _search(
        self, queries: Tensor, depth: int, k: int, exclude: Jagged | None, find: Find
    ) -> tuple[Tensor, Tensor]:
        asked = linked(queries, self.geometry).contiguous().numpy()
        raw_scores, raw_rows = find(asked, depth, torch.get_num_threads())
        rows, scores = torch.from_numpy(raw_rows), torch.from_numpy(raw_scores)
        bad = rows < 0
        if exclude is not None:
            bad |= _excluded(rows, exclude, len(self))
            # What passes comes first and stays in order.
            order = bad.byte().argsort(dim=1, stable=True)[:, :k]
            bad, rows, scores = (part.gather(1, order) for part in (bad, rows, scores))
        if bool(bad.any()):
            scores, rows = scores.masked_fill(bad, -torch.inf), rows.masked_fill(bad, -1)
        scores, rows = _in_order(scores, rows)
        short = max(0, k - depth)
        if short:
            pad = torch.nn.functional.pad
            return pad(scores, (0, short), value=-torch.inf), pad(rows, (0, short), value=-1)
        return scores[:, :k], rows[:, :k]

    def _complete(
        self, queries: Tensor, k: int, exclude: Jagged | None, scores: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A list with fewer than k items may have missed some: answer it exactly."""
        short = (rows[:, -1] < 0).nonzero().flatten()
        if len(short):
            seen = exclude.take(short) if exclude is not None else None
            scores[short], rows[short] = exact_topk(queries[short], self.vectors, k, seen)
        return scores, rows


@dataclass(frozen=True)
class Package:
    """Where a library comes from.

    name: in messages. module: what is imported. distribution: what is installed. extra: of the
    engine, that installs it; None: it comes with the engine.
    """

    name: str
    module: str
    distribution: str
    extra: str | None

    def require(self) -> None:
        """Find the library.

        Raises:
            ConfigError: it is not installed.
        """
        if importlib.util.find_spec(self.module) is None:
            wanted = self.distribution if self.extra is None else f"'recsys-engine[{self.extra}]'"
            raise ConfigError(
                f"an index by {self.name} needs the package {self.distribution}, which is not "
                f"installed: pip install {wanted}"
            )


class ApproximateBackend(ABC):
    """A backend whose index may miss some; see `Backend`."""

    @property
    @abstractmethod
    def package(self) -> Package:
        """The library."""

    @property
    def distribution(self) -> str:
        """The library's."""
        return self.package.distribution

    def require(self) -> None:
        """Find the library.

        Raises:
            ConfigError: it is not installed.
        """
        self.package.require()

    @abstractmethod
    def index_of(self, vectors: Tensor, geometry: Geometry, threads: int = 1) -> ApproximateIndex:
        """Return an index over vectors (n, E) float32, not yet measured."""

    @abstractmethod
    def write(self, folder: Path, index: Any) -> dict[str, Any]:
        """Write the files that the library reads next to the vectors; return what `open` needs."""

    @abstractmethod
    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> ApproximateIndex:
        """Return the index over `vectors` that was written; see `Backend.open`.

        Raises:
            ConfigError: the library is not installed.
            IntegrityError: the files are not of an index over `vectors`.
        """

    def build(self, folder: Path, request: IndexRequest) -> dict[str, Any]:
        """Build, find the cheapest search that reaches `min_recall`, write the files.

        Raises:
            ConfigError: the library is not installed.
            UserError: no effort reaches it; the figures are in the message.
        """
        self.require()
        index, facts = self.built(request)
        truth = Truth(measured_queries(request), request.vectors)
        chosen, recall = cheapest(index, truth, request.min_recall)
        if recall < request.min_recall:
            raise UserError(
                f"{index.name} reaches recall@10 {recall:.4f} at {chosen.text(index.ladder())} "
                f"over {len(index)} items, {request.min_recall} is wanted: lower min_recall, or "
                "use the exact index"
            )
        index.effort = chosen
        return facts | measured_facts(index, truth) | self.write(folder, index)

    def built(self, request: IndexRequest) -> tuple[ApproximateIndex, dict[str, Any]]:
        """Return the index of a request and what building it cost."""
        started = time.process_time()
        index = self.index_of(request.vectors, request.geometry, request.threads)
        return index, {"build_cpu_seconds": round(time.process_time() - started, 3)}


def measured_facts(index: ApproximateIndex, truth: Truth) -> dict[str, Any]:
    """Return the recall of an index at its effort, that effort and how it was built."""
    return {
        "recall_at_10": truth.recall(index, 10),
        "recall_at_100": truth.recall(index, 100),
        "recall_queries": len(truth.queries),
        "memory_bytes": index.held_bytes(index.effort),
        **index.effort.facts(index.ladder()),
        **index.facts(),
    }


def linked(vectors: Tensor, geometry: Geometry) -> Tensor:
    """Return what the index is built over and asked with: (..., D) of vectors (..., E)."""
    return points_of(vectors, geometry) if geometry == "ball" else vectors


def metric_of(geometry: Geometry) -> Metric:
    """Return what a library is to compare `linked` vectors by."""
    return "l2" if geometry == "ball" else "inner_product"


def _in_order(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and rows (B, K) best first, ties by the smaller row; most come so already."""
    wrong = scores[:, 1:] > scores[:, :-1]
    wrong |= (scores[:, 1:] == scores[:, :-1]) & (rows[:, 1:] < rows[:, :-1])
    where = wrong.any(1).nonzero().flatten()
    if len(where):
        # Sort by row, then stably by score.
        own_rows, order = rows[where].sort(dim=1)
        own, order = scores[where].gather(1, order).sort(dim=1, descending=True, stable=True)
        scores[where], rows[where] = own, own_rows.gather(1, order)
    return scores, rows


def _excluded(rows: Tensor, exclude: Jagged, num_items: int) -> Tensor:
    """Whether each of rows (B, K) is among its query's exclusions."""
    query = torch.repeat_interleave(torch.arange(len(exclude)), exclude.lengths())
    hidden = torch.unique(query * num_items + exclude.values)
    wanted = torch.arange(len(rows)).unsqueeze(1) * num_items + rows.clamp(min=0)
    return torch.isin(wanted, hidden)
