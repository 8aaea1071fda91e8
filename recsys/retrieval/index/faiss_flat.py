"""Exact search as a file of faiss, for who serves with faiss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.core.errors import IntegrityError
from recsys.core.imports import on_first_use
from recsys.retrieval.index.approximate import Package
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.faiss_lists import FILE
from recsys.retrieval.index.protocol import IndexRequest, Read

with on_first_use():
    from torch import Tensor

_PACKAGE = Package("faiss", "faiss", "faiss-cpu", None)


class FaissFlat:
    """An `IndexFlatIP` of the vectors; the engine, which has them, searches without it."""

    export_name = "flat"
    distribution = _PACKAGE.distribution

    def require(self) -> None:
        """Find faiss."""
        _PACKAGE.require()

    def build(self, folder: Path, request: IndexRequest) -> dict[str, Any]:
        """Write the file; products order in every geometry, so all is found."""
        import faiss

        flat: Any = faiss.IndexFlatIP(request.vectors.shape[1])
        flat.add(request.vectors.contiguous().numpy())
        (folder / FILE).write_bytes(faiss.serialize_index(flat).tobytes())
        size = request.vectors.numel() * request.vectors.element_size()
        return {"recall_at_10": 1.0, "recall_at_100": 1.0, "memory_bytes": size}

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> ExactVectors:
        """Return exact search over `vectors`.

        Raises:
            IntegrityError: the file holds others.
        """
        import faiss

        flat: Any = faiss.deserialize_index(np.frombuffer(read(FILE), np.uint8))
        if (flat.ntotal, flat.d) != tuple(vectors.shape):
            raise IntegrityError(
                f"index/{FILE}: {flat.ntotal} x {flat.d}, the vectors are {len(vectors)} x "
                f"{vectors.shape[1]}"
            )
        return ExactVectors(vectors)
