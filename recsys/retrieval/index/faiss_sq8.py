"""Inverted lists of vectors with a byte a number; see `recsys.retrieval.index.faiss_lists`."""

from typing import Any

from recsys.retrieval.index.faiss_lists import filled


class Bytes:
    """One byte for each number of a vector, from the least to the largest; see `Cells`."""

    name = "sq8"
    multiple = 16
    scanned_a_candidate = 12

    def transform(self, given: int, width: int) -> Any:
        """See `Cells`."""
        return filled(given, width)

    def empty(self, quantizer: Any, width: int, lists: int, metric: Any) -> Any:
        """See `Cells`."""
        import faiss

        kind = faiss.ScalarQuantizer.QT_8bit
        return faiss.IndexIVFScalarQuantizer(quantizer, width, lists, kind, metric, False)

    def parameters(self, nprobe: int) -> Any:
        """See `Cells`."""
        import faiss

        kind: Any = faiss.SearchParametersIVF
        return kind(nprobe=nprobe)

    def facts(self, width: int) -> dict[str, Any]:
        """Return the size of a code."""
        return {"code_bits": 8, "code_bytes": width}
