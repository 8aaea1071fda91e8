"""What every item index answers, and what a backend has to do to make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged
from recsys.layers.choices import Geometry

with on_first_use():
    from torch import Tensor

Read = Callable[[str], bytes]
"""Name of a file of an index -> its bytes, verified."""


class Index(Protocol):
    """Search by inner product over n item vectors of width E, known by row number."""

    @property
    def dim(self) -> int:
        """E."""

    def __len__(self) -> int:
        """Return n."""

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return scores (B, k) float32 and rows (B, k) int64 for queries (B, E).

        Best first, ties by the smaller row; score -inf and row -1 where fewer than k items
        remain once those of `exclude` (B rows of item rows) are left out.
        """


@runtime_checkable
class FilteredIndex(Index, Protocol):
    """An index whose library leaves out what does not pass while it searches."""

    def search_passing(
        self, queries: Tensor, k: int, passes: Tensor, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what `Index.search` does, of the items that `passes` (n,) bool alone.

        A list may be short where items that pass were not met: whoever asks completes it.
        """

    def candidates(self, k: int, num_passing: int) -> int:
        """Return how many candidates a search for k of so many items keeps: what it costs."""


@dataclass(frozen=True)
class IndexRequest:
    """What an index is to be built of.

    vectors: (n, E) float32 of the catalogue. geometry: where they live. queries: (Q, E) to measure
    recall with. space_id: hash of all that shapes an item's vector. item_ids_sha256: hash of the
    catalogue's ids in order. kind: `auto` or a name in `recsys.retrieval.index.registry`.
    min_recall: recall@10 that an approximate index must reach. threads: that build it.
    compatible_since: earlier spaces whose items the queries of the model may search as well.

    Raises:
        ConfigError: `min_recall` is no share.
    """

    vectors: Tensor
    geometry: Geometry
    queries: Tensor
    space_id: str
    item_ids_sha256: str
    kind: str
    min_recall: float
    threads: int = 1
    compatible_since: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.min_recall <= 1:
            raise ConfigError(f"min_recall is a share from 0 to 1, got {self.min_recall}")


class Backend(Protocol):
    """A kind of index."""

    @property
    def export_name(self) -> str:
        """What `recsys export --to` calls it."""

    @property
    def distribution(self) -> str | None:
        """Python distribution that it needs; None: none but the engine's own."""

    def require(self) -> None:
        """Find the library.

        Raises:
            ConfigError: it is not installed; the message says how to install it.
        """

    def build(self, folder: Path, request: IndexRequest) -> dict[str, Any]:
        """Write files next to the exact vectors in `folder`, if any; return what was measured.

        Raises:
            UserError: the index misses more than `request.min_recall` allows.
        """

    def open(self, read: Read, facts: Mapping[str, Any], vectors: Tensor) -> Index:
        """Return the index over `vectors` (n, E) from the files and facts that `build` gave.

        Raises:
            IntegrityError: the files hold no index over `vectors`.
        """
