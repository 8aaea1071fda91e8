"""Exports as a function: whatever suits the model's family."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from recsys.bundle.directory import Bundle


def _known(name: str) -> str:
    from recsys.serving.answering.registry import known_target

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
    """Export vectors, an index, a query tower or a ranker's graph; return what was written.

    Args:
        folder: of the bundle.
        target: what to export to.
        out: folder to make.
        min_recall: an index below this is refused.
        encoded: hyperplanes and repetitions, where items are to be written as encodings.

    Raises:
        ConfigError: the target does not suit the model, or `out` exists.
    """
    from recsys.serving.answering.registry import answering_of
    from recsys.serving.export.query_encoding import EncodingSize

    size = None if encoded is None else EncodingSize(*encoded)
    answering = answering_of(Bundle.open(folder))
    return answering.export(folder, target, out, min_recall=min_recall, encoded=size)
