"""Exports as a function: whatever suits the model's family."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.retrieval.index.registry import kinds_by_export
from recsys.serving.recommend.rows import is_ranker


def _known(name: str) -> str:
    from recsys.serving.export.targets import known_target

    return known_target(name)


Target = Annotated[str, AfterValidator(_known)]
"""What a model is exported to."""


def export_model(
    folder: Path,
    target: str,
    out: Path,
    min_recall: float,
    encoded: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Export vectors, an index or a ranker's graph; return what was written and measured.

    Args:
        folder: of the bundle.
        target: what to export to.
        out: folder to make.
        min_recall: an index below this is refused.
        encoded: hyperplanes and repetitions, where items are to be written as encodings.

    Raises:
        ConfigError: the target does not suit the model, or `out` exists.
    """
    if is_ranker(Bundle.open(folder)):
        if encoded is not None:
            raise ConfigError("--encoding fde is about vectors, and a ranker has none")
        if target != "onnx":
            raise ConfigError(f"--to {target}: a ranker has no vectors to search; give --to onnx")
        from recsys.serving.export.onnx_export import export_onnx

        return export_onnx(folder, out)
    if target == "onnx":
        raise ConfigError(
            "--to onnx is for rankers; a retrieval model goes --to parquet, or to an index: "
            f"{', '.join(kinds_by_export())}"
        )
    from recsys.serving.export.query_encoding import EncodingSize
    from recsys.serving.export.retrieval import export_index

    size = None if encoded is None else EncodingSize(*encoded)
    return export_index(folder, target, out, min_recall=min_recall, encoded=size)
