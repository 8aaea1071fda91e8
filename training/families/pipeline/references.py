"""How a source of a pipeline names a model that was trained before."""

import re
from pathlib import Path

from recsys.bundle.directory import bundles_of_run
from recsys.core.remote.path import below
from recsys.pipeline.config import Source

_REFERENCE = re.compile(r"models:/.+|runs:/.+|[0-9a-f]{32}")
"""What the registry knows a model by."""


def settled_reference(source: Source, folder: Path) -> Source | None:
    """Return the source with an absolute path and its name, where it names a trained model."""
    assert isinstance(source.model, str)
    path = below(folder, source.model)
    if not path.is_dir() and not _REFERENCE.fullmatch(source.model):
        return None
    model = source.model
    if path.is_dir():
        inside = bundles_of_run(path)
        model = str((inside[-1] if inside else path).resolve())
    return source.model_copy(update={"model": model, "name": source.name or _name(source.model)})


def _name(reference: str) -> str:
    """Return a name for reports: that of the registered model, or of the folder."""
    last = reference.removeprefix("models:/").split("@")[0].rstrip("/")
    last = last.split("/")[0] if reference.startswith("models:/") else last.rsplit("/", 1)[-1]
    name = re.sub(r"[^a-z0-9_]+", "_", last.lower()).strip("_")
    return name if re.match("[a-z]", name) else f"model_{name}"
