"""What a model can be exported to, by name."""

from recsys.core.strict import nearest
from recsys.retrieval.index.registry import kinds_by_export

VECTORS, ONNX = "parquet", "onnx"


def export_targets() -> list[str]:
    """Return what `recsys export --to` takes."""
    return sorted([VECTORS, ONNX, *kinds_by_export()])


def known_target(target: str) -> str:
    """Return `target`.

    Raises:
        ValueError: it is none.
    """
    targets = export_targets()
    if target not in targets:
        names = ", ".join(map(repr, targets))
        raise ValueError(f"should be one of {names}{nearest(target, targets)}")
    return target
