"""Items that are searched exactly, and what searching them found out.

Shape letters: B queries, N items, E width.
"""

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.retrieval import scan, screen
from recsys.retrieval.pairs import Floats
from recsys.retrieval.screen import Tiles


class Prepared:
    """Items to be searched more than once; see `recsys.retrieval.topk.exact_topk`.

    What screening needs, a byte a number, is kept from the call on with which enough queries have
    come to pay for it. The vectors must not change any more.
    """

    def __init__(self, vectors: Tensor) -> None:
        """Take (N, E) vectors; they are looked at when they are first searched."""
        self.vectors = plain(vectors)
        self._largest: float | None = None
        self._asked = 0
        self._tiles: tuple[int, list[Tiles]] = (0, [])

    def largest(self) -> float:
        """Return the largest norm.

        Raises:
            DataError: a vector with NaN or infinity, or so large that scores could overflow.
        """
        if self._largest is None:
            self._largest = largest_norm(self.vectors, "items")
        return self._largest

    def maxima(self, queries: Tensor) -> Floats:
        """Return what `scan.folded_maxima` does, from which the norms are known besides.

        Raises:
            DataError: as `largest`.
        """
        unknown = self._largest is None
        maxima, largest = scan.folded_maxima(queries, self.vectors, norms=unknown)
        if unknown:
            self._largest = self.largest() if largest is None else largest
        return maxima

    def tiles(self, num_queries: int, k: int, tile: int) -> list[Tiles]:
        """Return the tiles to screen, in the order in which to try them; none: it does not pay."""
        self._asked += num_queries
        tile = -(-tile // screen.TILE_UNIT) * screen.TILE_UNIT
        if not screen.worthwhile(num_queries, self._asked, len(self.vectors), k, tile):
            return []
        if self._tiles[0] != tile:
            self.largest()
            found = [screen.byte_tiles(self.vectors, tile)] if screen.bytes_pay() else []
            self._tiles = tile, [*found, screen.float_tiles(self.vectors, tile)]
        return self._tiles[1]


def plain(tensor: Tensor) -> Tensor:
    """Return it as contiguous float32 on the processor."""
    return tensor.detach().to("cpu", torch.float32).contiguous()


def largest_norm(vectors: Tensor, name: str) -> float:
    """Return the largest norm; NaN, infinity and overflow show in it.

    Raises:
        DataError: there is one of them; `name` says whose.
    """
    norms = torch.linalg.vector_norm(vectors, dim=1)
    bad = ~(norms < scan.LIMIT)
    if bad.any():
        raise DataError(
            f"{name}: row {int(bad.int().argmax())} holds NaN, infinity or a number so large "
            "that scores overflow; look for a training run that diverged"
        )
    return float(norms.max()) if len(norms) else 0.0
