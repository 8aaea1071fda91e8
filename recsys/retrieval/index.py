"""What every item index answers, exact or approximate, and the exact one itself."""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval.topk import exact_topk


class Index(Protocol):
    """Search by inner product over n item vectors of width E, known by row number."""

    @property
    def dim(self) -> int:
        """E."""

    def __len__(self) -> int:
        """Return n."""

    def is_exact(self) -> bool:
        """Whether `search` gives what sorting all items would give."""

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return scores (B, k) float32 and rows (B, k) int64 for queries (B, E).

        Best first, ties by the smaller row; score -inf and row -1 where fewer than k items
        remain once those of `exclude` (B rows of item rows) are left out.
        """

    def save(self, folder: Path) -> None:
        """Write the index's files into `folder`."""


class ExactVectors:
    """Exact search over vectors (n, E) float32 held in memory."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def is_exact(self) -> bool:
        """Return True."""
        return True

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the exact answer; see `Index.search`."""
        return exact_topk(queries, self.vectors, k, exclude)

    def save(self, folder: Path) -> None:
        """Write vectors.safetensors into `folder`."""
        from safetensors.torch import save

        (folder / "vectors.safetensors").write_bytes(save({"vectors": self.vectors.contiguous()}))
