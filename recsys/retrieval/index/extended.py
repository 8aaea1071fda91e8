"""An index with more items behind those that it was built over."""

import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.interests import merged
from recsys.retrieval.passing import where


class Extended:
    """Search of an index and, exactly, among further items, whose rows follow; see `Index`."""

    def __init__(self, index: Index, vectors: Tensor) -> None:
        """Take an index over n items, and vectors (M, E) of the others."""
        self._index, self._more = index, ExactVectors(vectors)

    @property
    def dim(self) -> int:
        """E."""
        return self._index.dim

    def __len__(self) -> int:
        return len(self._index) + len(self._more)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the k best of both; see `Index.search`."""
        size, first, second = len(self._index), exclude, exclude
        if exclude is not None:
            first = where(exclude, exclude.values < size)
            later = where(exclude, exclude.values >= size)
            second = Jagged(later.values - size, later.offsets)
        scores, rows = self._index.search(queries, k, first)
        more_scores, more = self._more.search(queries, k, second)
        more = torch.where(more >= 0, more + size, more)
        return merged(torch.cat([scores, more_scores], 1), torch.cat([rows, more], 1), k)


def extended(index: Index, vectors: Tensor, more: Tensor) -> Index:
    """Return an index over `vectors` (n, E) and `more` (M, E); an exact one stays one.

    index: over `vectors`.
    """
    if isinstance(index, ExactVectors):
        return ExactVectors(torch.cat([vectors, more]))
    return Extended(index, more)
