"""Inverted lists of vectors as they are; see `recsys.retrieval.index.faiss_lists`."""

from typing import Any

from recsys.retrieval.index.faiss_lists import filled


class Vectors:
    """Float vectors in the lists; see `Cells`."""

    name = "ivf"
    multiple = 1
    scanned_a_candidate = None

    def transform(self, given: int, width: int) -> Any:
        """See `Cells`."""
        return filled(given, width)

    def empty(self, quantizer: Any, width: int, lists: int, metric: Any) -> Any:
        """See `Cells`."""
        import faiss

        return faiss.IndexIVFFlat(quantizer, width, lists, metric)

    def parameters(self, nprobe: int) -> Any:
        """See `Cells`."""
        import faiss

        kind: Any = faiss.SearchParametersIVF
        return kind(nprobe=nprobe)

    def facts(self, width: int) -> dict[str, Any]:
        """Nothing but the vectors."""
        return {}
