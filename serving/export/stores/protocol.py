"""What a target writes, and what every target is given.

Shape letters: n items, W width of a model's vectors, D width of what a store searches, Q queries.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from recsys.layers.choices import Geometry
from recsys.retrieval.index.approximate import linked
from recsys.retrieval.index.build import build_index
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.recall import measured_queries
from recsys.retrieval.topk import exact_topk
from recsys.serving.export.conditions import Condition, example_of, passing
from recsys.serving.export.payload import VECTOR, Payload

Build = Callable[[Path, IndexRequest], dict[str, Any]]
"""Writes an index into a folder; returns what was built and measured."""
PROBE_FILE = "queries.parquet"
PROBE_QUERIES = 1_000
K = 10


@dataclass(frozen=True)
class Content:
    """What is exported.

    request: vectors (n, W), geometry, queries, the recall that is wanted. payload: the items'
    columns, in the same order. build: how an index is built of a request in a folder, and measured.
    """

    request: IndexRequest
    payload: Payload
    build: Build = build_index

    @property
    def vectors(self) -> Tensor:
        """(n, W) float32, whose inner products with queries (W,) are the scores."""
        return self.request.vectors

    @property
    def geometry(self) -> Geometry:
        """Where the vectors live."""
        return self.request.geometry

    @property
    def by_distance(self) -> bool:
        """Whether a store has to search for the nearest points, not for the largest products."""
        return self.geometry == "ball"

    @cached_property
    def points(self) -> Tensor:
        """(n, D) float32: what a store searches; in the ball by L2, elsewhere by products."""
        return linked(self.vectors, self.geometry).contiguous()

    @property
    def point_dim(self) -> int:
        """D: a store is asked with the first D numbers of a query's vector."""
        return self.points.shape[1]

    @property
    def items(self) -> pa.Table:
        """The key and the columns, n rows."""
        return self.payload.table

    @property
    def key(self) -> str:
        """Column of the items' ids."""
        return self.payload.key

    @cached_property
    def example(self) -> list[Condition]:
        """A filter on columns that there are."""
        return example_of(self.items)

    @cached_property
    def probe(self) -> "Probe":
        """Queries, and what exact search answers them."""
        return Probe.of(self, measured_queries(self.request)[:PROBE_QUERIES])

    def table(self, start: int, stop: int | None = None) -> pa.Table:
        """Return key, columns and `vector` (D,) of some items."""
        points = self.points[start:stop]
        flat = pa.array(points.reshape(-1).numpy())
        lists = pa.FixedSizeListArray.from_arrays(flat, points.shape[1])
        part = self.items.slice(start, len(points))
        return part.append_column(pa.field(VECTOR, lists.type), lists)

    def facts(self) -> dict[str, Any]:
        """Return what is true of the vectors, whatever holds them."""
        since = self.request.compatible_since
        found: dict[str, Any] = {"compatible_since": list(since)} if since else {}
        return found | {
            "space_id": self.request.space_id,
            "item_ids_sha256": self.request.item_ids_sha256,
            "metric": "inner_product",
            "geometry": self.geometry,
            "normalised": self.geometry == "sphere",
            "n": len(self.vectors),
            "dim": self.vectors.shape[1],
        }


@dataclass(frozen=True)
class Probe:
    """queries (Q, W); rows (Q, k) of the best items; filtered (Q, k) of those that pass."""

    queries: Tensor
    rows: Tensor
    filtered: Tensor

    @classmethod
    def of(cls, content: Content, queries: Tensor) -> Self:
        """Return the answers of exact search to queries (Q, W)."""
        left = torch.from_numpy(np.flatnonzero(passing(content.example, content.items)))
        k = min(K, len(content.vectors))
        rows = exact_topk(queries, content.vectors, k)[1]
        few = exact_topk(queries, content.vectors[left], min(k, len(left)))[1]
        return cls(queries, rows, left[few])

    def table(self, ids: pa.Array) -> pa.Table:
        """Return columns `vector` (W,), `items` and `items_filtered`, lists of ids."""
        flat = pa.array(self.queries.reshape(-1).numpy())
        width = self.queries.shape[1]
        columns = {VECTOR: pa.FixedSizeListArray.from_arrays(flat, width)}
        for name, rows in (("items", self.rows), ("items_filtered", self.filtered)):
            taken = ids.take(pa.array(rows.reshape(-1).numpy()))
            ends = pa.array(range(0, rows.numel() + 1, rows.shape[1]), pa.int32())
            columns[name] = pa.ListArray.from_arrays(ends, taken)
        return pa.table(columns)


def write_probe(folder: Path, content: Content) -> None:
    """Write the probe's queries, and what exact search answers them."""
    table = content.probe.table(content.items.column(content.key).combine_chunks())
    pq.write_table(table, folder / PROBE_FILE, write_page_checksum=True)


@dataclass(frozen=True)
class Page:
    """What README.md says of a target, as Markdown with code that runs in the export's folder.

    holds: file -> what is in it. load, ask, filter: paragraphs and code; the code of `ask` leaves
    what the first query of queries.parquet finds in `found`, that of `filter` in `filtered`, ids
    both. recall: how much is found, or how to measure it. notes: what else is to know.
    """

    title: str
    holds: Mapping[str, str]
    load: str
    ask: str
    filter: str
    recall: str
    notes: str = ""


class Target(Protocol):
    """What a model with vectors can be exported to."""

    def require(self) -> None:
        """Find the library that writing needs.

        Raises:
            ConfigError: it is not installed; the message says how to install it.
        """

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write files into `folder`; return facts about them.

        Raises:
            UserError: the target cannot hold the content, or misses the recall that is wanted.
        """

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return what README.md says, of the facts that `write` gave."""
