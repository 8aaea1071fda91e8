"""LanceDB: a folder that `lancedb.connect` opens, with an index where there are many items.

Without an index LanceDB compares all vectors and is exact. From `INDEXED_FROM` items on there are
lists of nearest centres (IVF) over the vectors as they are, whose number that a search looks at is
the smallest that finds what is wanted.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, UserError
from recsys.data.batch import Jagged
from recsys.retrieval.index.recall import recall_against_exact
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import Content, Page
from recsys.serving.export.stores.store_code import query_code, sql

TABLE = "items"
INDEXED_FROM = 100_000
_ROWS = 50_000
_MEASURED = 200
_WAIT = timedelta(hours=2)


@dataclass(frozen=True)
class Lance:
    """See `Target`. indexed_from: items from which on there is an index."""

    indexed_from: int = INDEXED_FROM

    def require(self) -> None:
        """Find the library."""
        if importlib.util.find_spec("lancedb") is None:
            raise ConfigError(
                "an export to LanceDB needs the package lancedb, which is not installed: "
                "pip install 'recsys-engine[lancedb]'"
            )

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write the table and, where it pays, an index that reaches the recall wanted."""
        import lancedb

        self.require()
        for name in content.items.column_names:
            if "." in name:
                raise ConfigError(
                    f"column '{name}': LanceDB reads a dot as a part of a column; name the columns "
                    "to export without it, --columns A,B"
                )
        first = content.table(0, 0)
        batches = (batch for part in _parts(content) for batch in part.to_batches())
        reader = pa.RecordBatchReader.from_batches(first.schema, batches)
        table = lancedb.connect(str(folder)).create_table(TABLE, reader)
        facts = content.facts() | {
            "search_metric": "l2" if content.by_distance else "inner_product",
            "search_dim": content.point_dim,
        }
        if len(content.vectors) < self.indexed_from:
            return facts | {"recall_at_10": 1.0, "recall_at_100": 1.0}
        return facts | _indexed(table, content)

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how LanceDB opens the table."""
        probes = f".nprobes({facts['nprobe']})" if "nprobe" in facts else ""
        search = f'items.search(query).distance_type("{_distance(content)}"){probes}'
        where = sql(content.example, lambda column, value: f"array_has({column}, {value})")
        taken = f"[{content.key!r}].to_pylist()"
        exact = "Exact: LanceDB compares all vectors, as there is no index."
        measured = f"recall@10 {facts['recall_at_10']:.4f} and recall@100 " + (
            f"{facts['recall_at_100']:.4f} of exact search with nprobes as above."
        )
        return Page(
            title="a table of LanceDB",
            holds={f"{TABLE}.lance/": f"the table: columns and `{VECTOR}`"},
            load="```bash\npip install lancedb\n```\n\n"
            f'```python\nimport lancedb\n\nitems = lancedb.connect(".").open_table("{TABLE}")\n```',
            ask=f"```python\n{query_code(content)}\nrows = {search}.limit(10).to_arrow()\n"
            f"found = rows{taken}\n```\n\n`_distance` is {_meaning(content)}.",
            filter=f"```python\nrows = {search}.where({where!r}).limit(10).to_arrow()\n"
            f"filtered = rows{taken}\n```\n\nThe condition is SQL and holds before the search, so "
            "that ten items are found where there are ten."
            if content.example
            else "",
            recall=measured if probes else exact,
        )


def _parts(content: Content) -> Iterator[pa.Table]:
    for start in range(0, len(content.vectors), _ROWS):
        yield content.table(start, start + _ROWS)


def _distance(content: Content) -> str:
    return "l2" if content.by_distance else "dot"


def _meaning(content: Content) -> str:
    return (
        "the squared distance" if content.by_distance else "1 minus the product, which is the score"
    )


def _indexed(table: Any, content: Content) -> dict[str, Any]:
    """Build lists; return how many a search has to look at, and what it finds then."""
    from lancedb.index import IvfFlat

    centres = round(len(content.vectors) ** 0.5)
    settings = IvfFlat(distance_type=_distance(content), num_partitions=centres)
    table.create_index(VECTOR, config=settings, wait_timeout=_WAIT)
    queries = content.probe.queries[:_MEASURED]
    ids = content.items.column(content.key).to_pylist()
    rows = {item: row for row, item in enumerate(ids)}
    recall, nprobe = 0.0, 1
    while nprobe <= centres:
        found = _Found(table, content, rows, nprobe)
        recall = recall_against_exact(found, queries, content.vectors, 10)
        if recall >= content.request.min_recall:
            far = recall_against_exact(found, queries, content.vectors, 100)
            facts = {"recall_at_10": recall, "recall_at_100": far, "nprobe": nprobe}
            return facts | {"lists": centres, "recall_queries": len(queries)}
        nprobe *= 2
    raise UserError(
        f"LanceDB reaches recall@10 {recall:.4f} with {nprobe // 2} of {centres} lists, "
        f"{content.request.min_recall} is wanted: lower --min-recall"
    )


@dataclass(frozen=True)
class _Found:
    """The table's answers as row numbers; see `Index`."""

    table: Any
    content: Content
    rows: Mapping[Any, int]
    nprobe: int

    @property
    def dim(self) -> int:
        return self.content.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.content.vectors)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return scores that nobody reads, and rows (B, k), -1 where fewer were found; B > 1."""
        points = queries[:, : self.content.point_dim].contiguous().numpy()
        asked = self.table.search(points).distance_type(_distance(self.content))
        found = asked.nprobes(self.nprobe).select([self.content.key, "_distance"]).limit(k)
        answer = found.to_arrow().sort_by(
            [("query_index", "ascending"), ("_distance", "ascending")]
        )
        rows, place, last = torch.full((len(queries), k), -1), 0, -1
        pairs = (answer.column(name).to_pylist() for name in ("query_index", self.content.key))
        for query, item in zip(*pairs, strict=True):
            place = place + 1 if query == last else 0
            rows[query, place], last = self.rows[item], query
        return torch.zeros(len(queries), k), rows
