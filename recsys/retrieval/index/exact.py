"""Exact search over vectors in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged
from recsys.retrieval.index.protocol import IndexRequest, Read

with on_first_use():
    from torch import Tensor

    from recsys.retrieval.prepared import Prepared
    from recsys.retrieval.topk import exact_topk


class ExactVectors:
    """Exact search over vectors (n, E) float32 in memory, which must not change; see `Index`."""

    def __init__(self, vectors: Tensor) -> None:
        self._prepared = Prepared(vectors)

    @property
    def vectors(self) -> Tensor:
        """(n, E)."""
        return self._prepared.vectors

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the exact answer; see `Index.search`."""
        return exact_topk(queries, self._prepared, k, exclude)


class Exact:
    """The backend that needs no file besides the vectors; see `Backend`."""

    export_name = "exact"
    distribution = None

    def require(self) -> None:
        """Need nothing."""

    def build(self, folder: Path, request: IndexRequest) -> dict[str, Any]:
        """Write nothing: exact search finds all."""
        return {"recall_at_10": 1.0, "recall_at_100": 1.0}

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> ExactVectors:
        """Return exact search over `vectors`."""
        return ExactVectors(vectors)
