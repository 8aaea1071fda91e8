"""Inverted lists of product codes, two numbers of a vector in four bits, scanned in registers.

Andre et al., "Cache locality is not enough: High-performance nearest neighbor search with product
quantization fast scan", VLDB 2015; see `recsys.retrieval.index.faiss_lists`.
"""

from typing import Any

from recsys.retrieval.index.faiss_lists import filled

_BITS, _NUMBERS = 4, 2


class ProductCodes:
    """A quarter byte for each number of a vector; see `Cells`."""

    name = "ivf_pq"
    multiple = 4
    scanned_a_candidate = 50

    def transform(self, given: int, width: int) -> Any:
        """See `Cells`."""
        return filled(given, width)

    def empty(self, quantizer: Any, width: int, lists: int, metric: Any) -> Any:
        """See `Cells`."""
        import faiss

        found: Any = faiss.IndexIVFPQFastScan(
            quantizer, width, lists, width // _NUMBERS, _BITS, metric
        )
        found.pq.cp.min_points_per_centroid = 1
        return found

    def parameters(self, nprobe: int) -> Any:
        """See `Cells`."""
        import faiss

        kind: Any = faiss.SearchParametersIVF
        return kind(nprobe=nprobe)

    def facts(self, width: int) -> dict[str, Any]:
        """Return the size of a code."""
        return {"code_bits": _BITS, "code_bytes": width // _NUMBERS * _BITS // 8}
