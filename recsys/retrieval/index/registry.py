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

EXACT, LISTS = "exact", "ivf"
BACKENDS: dict[str, Backend] = {
    EXACT: Exact(),
    "flat": FaissFlat(),
    "hnsw": GraphBackend(Faiss()),
    "hnswlib": GraphBackend(Hnswlib()),
    LISTS: ListsBackend(Vectors()),
    "ivf_pq": ListsBackend(ProductCodes()),
    "rabitq": ListsBackend(RotatedBits()),
    "scann": Scann(),
    "sq8": ListsBackend(Bytes()),
    "usearch": GraphBackend(Usearch()),
}
EXACT_UP_TO = 200_000 * 64
"""Numbers in the vectors of a catalogue that is searched exactly by default. By measuring: one core
answers 7,800 queries a second over 100,000 x 65 and 2,400 over 300,000 x 65, exactly; lists answer
16,000 and 6,600 and miss some. Up to here exact search is quick, and it is right."""
AUTO = "auto"


def kind_for(kind: str, num_items: int, dim: int) -> str:
    """Return the name of the backend that `kind` asks for over so many vectors of width `dim`.

    `auto` decides by size alone, so that a model's bundle is the same on every machine.
    """
    if kind != AUTO:
        return kind
    return EXACT if num_items * dim <= EXACT_UP_TO else LISTS


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
