"""The targets by name: what `recsys export --to` takes for models with vectors.

To add a store: a file next to this one, a line here, a test in `tests/serving/export/stores/`. The
kinds of index are those of `recsys.retrieval.index.registry`: a new one is a target by itself.
"""

from recsys.retrieval.index.registry import AUTO, kinds_by_export
from recsys.serving.export.stores.lance import Lance
from recsys.serving.export.stores.milvus import Milvus
from recsys.serving.export.stores.pgvector import Pgvector
from recsys.serving.export.stores.protocol import Target
from recsys.serving.export.stores.qdrant import Qdrant
from recsys.serving.export.stores.search_engines import ELASTICSEARCH, OPENSEARCH
from recsys.serving.export.stores.vectors import IndexFiles, VectorFile

FILES = "parquet"
"""What vectors without an index are called."""
STORES: dict[str, Target] = {
    "lancedb": Lance(),
    "qdrant": Qdrant(),
    "pgvector": Pgvector(),
    "milvus": Milvus(),
    "opensearch": OPENSEARCH,
    "elasticsearch": ELASTICSEARCH,
}


def targets() -> dict[str, Target]:
    """Return all targets by name: the indexes, vectors without one, and the stores."""
    indexes = {name: IndexFiles(kind) for name, kind in kinds_by_export().items()}
    return {**indexes, FILES: VectorFile(), **STORES}


def target_of(name: str | None) -> Target:
    """Return the target of that name; None: an index of whatever kind."""
    return IndexFiles(AUTO) if name is None else targets()[name]
