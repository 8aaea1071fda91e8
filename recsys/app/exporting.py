"""Exports as functions: whatever suits the model's family, and their verification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from recsys.app.arguments import checked
from recsys.bundle.directory import MANIFEST, Bundle
from recsys.core.errors import NotFoundError


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
    columns: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Export vectors, an index or a ranker's graph; return what was written and measured.

    Args:
        folder: of the bundle.
        target: what to export to.
        out: folder to make.
        min_recall: an index below this is refused.
        encoded: hyperplanes and repetitions, where items are to be written as encodings.
        columns: of the items that go along with the vectors; None: all that a store can hold.

    Raises:
        ConfigError: the target does not suit the model, `out` exists, or `reduce` names nothing.
    """
    from recsys.retrieval.index.reduced import ReductionSize
    from recsys.serving.answering.registry import answering_of
    from recsys.serving.export.query_encoding import EncodingSize

    size = None if encoded is None else EncodingSize(*encoded)
    short = None if reduce is None else ReductionSize.of(reduce)
    answering = answering_of(Bundle.open(folder))
    return answering.export(
        folder, target, out, min_recall=min_recall, encoded=size, columns=columns
    )


@checked
def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file of an export, or of a model's bundle, against the hash in its manifest.

    Args:
        folder: what `export` made, or the folder of a bundle.

    Returns:
        `folder`, `model_id`, the number of `files`, and of an export the `target`.

    Raises:
        NotFoundError: the folder is neither.
        IntegrityError: a file is missing, was changed or should not be there; it is named.
    """
    from recsys.serving.export.manifest import EXPORT_FILE, open_export

    path = Path(folder)
    if (path / EXPORT_FILE).exists():
        export = open_export(path)
        facts = {"model_id": export.facts["model_id"], "target": export.facts["target"]}
        return {"folder": str(path), **facts, "files": len(export.names()) + 1}
    if not (path / MANIFEST).exists():
        raise NotFoundError(
            f"{path}: neither an export (no {EXPORT_FILE}) nor a model's bundle (no {MANIFEST})"
        )
    bundle = Bundle.open(path)
    return {"folder": str(path), "model_id": bundle.model_id, "files": len(bundle.names()) + 1}
