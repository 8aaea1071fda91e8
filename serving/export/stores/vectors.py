"""Vectors without an index, and the indexes of `recsys.retrieval.index.registry`, as files.

vectors.parquet      of vectors without an index: item id and vector, one row an item
vectors.safetensors  of an index: the vectors, (n, W) float32
ids.parquet          of an index: row, item id
index.*              of an index: the library's file
index.json           facts
items.parquet        the items' columns, in the same order
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.retrieval.index.build import VECTORS_FILE, write_facts
from recsys.retrieval.index.reduced import REDUCTION_FILE, WHOLE_FILE
from recsys.retrieval.index.registry import AUTO, BACKENDS
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import Content, Page
from recsys.serving.export.stores.python_code import (
    IDS_FILE,
    ITEMS_FILE,
    VECTORS_TABLE,
    Way,
    passing_rows,
    product_way,
    way_of,
)

_ITEMS = "the items' columns, in the order of the rows"


@dataclass(frozen=True)
class IndexFiles:
    """An index; see `Target`. kind: its name in the registry of indexes, or `auto`: any."""

    kind: str

    def require(self) -> None:
        """Find the library; of any kind, those that are there are enough."""
        if self.kind != AUTO:
            BACKENDS[self.kind].require()

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Build the index and measure it."""
        facts = content.build(folder, replace(content.request, kind=self.kind))
        ids = content.items.column(content.key).combine_chunks()
        rows = pa.table({"row": range(len(ids)), "item_id": ids})
        pq.write_table(rows, folder / IDS_FILE, write_page_checksum=True)
        pq.write_table(content.items, folder / ITEMS_FILE, write_page_checksum=True)
        return facts

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how the file is opened by its own library, where the code for it is known."""
        way = way_of(facts, BACKENDS[facts["kind"]].export_name)
        files = {
            VECTORS_FILE: f"vectors, ({facts['n']}, {facts['dim']}) float32, in the order of rows",
            IDS_FILE: "row number and item id",
            ITEMS_FILE: _ITEMS,
            "index.json": "what was built and measured",
        }
        if "reduction" in facts:
            files[REDUCTION_FILE] = "what makes short vectors of items and of queries"
            files[WHOLE_FILE] = "whole vectors, float32, in the order of rows"
        recall = [f"recall@{k} {facts[f'recall_at_{k}']:.4f}" for k in _measured(facts)]
        over = f", over {facts['recall_queries']} queries" if "recall_queries" in facts else ""
        return _page(content, way, files, f"{' and '.join(recall)} of exact search{over}.")


class VectorFile:
    """Vectors in one Parquet file; see `Target`."""

    def require(self) -> None:
        """Need nothing."""

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write ids and vectors."""
        vectors = content.vectors
        flat = pa.array(vectors.reshape(-1).numpy())
        lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        ids = content.items.column(content.key)
        table = pa.table({"item_id": ids, VECTOR: lists})
        pq.write_table(table, folder / VECTORS_TABLE, write_page_checksum=True)
        pq.write_table(content.items, folder / ITEMS_FILE, write_page_checksum=True)
        facts = content.facts()
        write_facts(folder, facts)
        return facts

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how the vectors are searched by NumPy."""
        files = {
            VECTORS_TABLE: "item id and vector, one row an item",
            ITEMS_FILE: _ITEMS,
            "index.json": "facts of the vectors",
        }
        way = product_way(VECTORS_TABLE, content.vectors.shape[1])
        return _page(content, way, files, "Exact: every vector is compared.")


def _measured(facts: Mapping[str, Any]) -> list[int]:
    return [k for k in (10, 100) if f"recall_at_{k}" in facts]


def _page(content: Content, way: Way, files: dict[str, str], recall: str) -> Page:
    return Page(
        title=way.title,
        holds=files,
        load=f"```python\n{way.load}\n```",
        ask=f"```python\n{way.ask}\n```",
        filter=f"```python\n{passing_rows(content)}\n{way.filter}\n```" if content.example else "",
        recall=recall,
        notes=way.notes,
    )
