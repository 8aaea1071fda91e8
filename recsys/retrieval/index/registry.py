"""The kinds of index by name: what `index.kind` may be besides `auto`.

To add one: a file next to this one, a line here, a test of its own in
`tests/recsys/retrieval/index/`.
"""

from recsys.retrieval.index.exact import Exact
from recsys.retrieval.index.faiss_flat import FaissFlat
from recsys.retrieval.index.faiss_hnsw import Faiss
from recsys.retrieval.index.faiss_ivf import Vectors
from recsys.retrieval.index.faiss_ivf_pq import ProductCodes
from recsys.retrieval.index.faiss_lists import ListsBackend
from recsys.retrieval.index.faiss_rabitq import RotatedBits
from recsys.retrieval.index.faiss_sq8 import Bytes
from recsys.retrieval.index.graph import GraphBackend
from recsys.retrieval.index.hnswlib_hnsw import Hnswlib
from recsys.retrieval.index.protocol import Backend
from recsys.retrieval.index.scann_tree import Scann
from recsys.retrieval.index.usearch_hnsw import Usearch

EXACT = "exact"
BACKENDS: dict[str, Backend] = {
    EXACT: Exact(),
    "flat": FaissFlat(),
    "hnsw": GraphBackend(Faiss()),
    "hnswlib": GraphBackend(Hnswlib()),
    "ivf": ListsBackend(Vectors()),
    "ivf_pq": ListsBackend(ProductCodes()),
    "rabitq": ListsBackend(RotatedBits()),
    "scann": Scann(),
    "sq8": ListsBackend(Bytes()),
    "usearch": GraphBackend(Usearch()),
}
EXACT_BELOW = 100_000
"""Catalogues below this size are searched exactly by default: it is quick and it is right."""
AUTO = "auto"


def kind_for(kind: str, num_items: int) -> str:
    """Return the name of the backend that `kind` asks for over so many items."""
    if kind != AUTO:
        return kind
    return EXACT if num_items < EXACT_BELOW else "ivf"


def require(kind: str) -> None:
    """Find the library that `kind` needs, before there is work to lose.

    Raises:
        ConfigError: it is not installed.
    """
    if kind != AUTO:
        BACKENDS[kind].require()


def kinds_by_export() -> dict[str, str]:
    """Return what `recsys export --to` calls each backend -> its name here."""
    return {backend.export_name: kind for kind, backend in BACKENDS.items()}
