"""Inverted lists of a few bits a number, with what bounds the error of a product.

Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for
Approximate Nearest Neighbor Search", SIGMOD 2024; with more than one bit: Gao et al., "Practical
and Asymptotically Optimal Quantization of High-Dimensional Vectors in Euclidean Space for
Approximate Nearest Neighbor Search", SIGMOD 2025. See `recsys.retrieval.index.faiss_lists`.
"""

from typing import Any

_BITS, _SEED = 4, 0


class RotatedBits:
    """Four bits for each number of a vector; see `Cells`."""

    name = "rabitq"
    multiple = 8
    scanned_a_candidate = 12

    def transform(self, given: int, width: int) -> Any:
        """See `Cells`."""
        import faiss

        rotation = faiss.RandomRotationMatrix(given, width)
        rotation.init(_SEED)
        return rotation

    def empty(self, quantizer: Any, width: int, lists: int, metric: Any) -> Any:
        """See `Cells`."""
        import faiss

        kind: Any = faiss.IndexIVFRaBitQ
        return kind(quantizer, width, lists, metric, True, _BITS)

    def parameters(self, nprobe: int) -> Any:
        """See `Cells`."""
        import faiss

        kind: Any = faiss.IVFRaBitQSearchParameters
        return kind(nprobe=nprobe)

    def facts(self, width: int) -> dict[str, Any]:
        """Return the size of a code without what bounds its error."""
        return {"code_bits": _BITS, "code_bytes": width * _BITS // 8}
