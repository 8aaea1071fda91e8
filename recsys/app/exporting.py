"""Exports as functions: whatever suits the model's family, and their verification."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from recsys.app.arguments import checked
from recsys.bundle.directory import MANIFEST, Bundle
from recsys.bundle.found import bundle_at
from recsys.core.byte_sizes import bytes_of, size_text
from recsys.core.errors import ConfigError, NotFoundError
from recsys.core.remote.moving import fetch_folder
from recsys.core.remote.path import RemotePath, path_at


def _known(name: str) -> str:
    from recsys.serving.answering.registry import known_target

    return known_target(name)


def _size(text: str) -> str:
    bytes_of(text)
    return text


Target = Annotated[str, AfterValidator(_known)]
"""What a model is exported to."""
Size = Annotated[str, AfterValidator(_size)]
"""Bytes as text, as in 200MiB."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of an export, as it is written.

    Attributes:
        min_recall: an index below this is refused.
        encoded: hyperplanes and repetitions, where items are to be written as encodings.
        columns: of the items that go along with the vectors; None: all that a store can hold.
        reduce: method and width of shorter vectors, as in `leanvec:32`.
        tune: whether the cheapest search is to be found.
        memory: bytes that its index may hold; None: any.
    """

    min_recall: float
    encoded: tuple[int, int] | None = None
    columns: Sequence[str] | None = None
    reduce: str | None = None
    tune: bool = False
    memory: int | None = None


def export_model(folder: Path, target: str | None, out: Path, asked: Asked) -> dict[str, Any]:
    """Export vectors, an index, a query tower or a ranker's graph; return what was written.

    Args:
        folder: of the bundle.
        target: what to export to; None: `asked.tune` chooses the kind of index.
        out: folder to make.
        asked: how.

    Raises:
        ConfigError: the target does not suit the model, there is none, `out` exists, or what is
            asked for does not go together.
    """
    from recsys.retrieval.index.reduced import ReductionSize
    from recsys.serving.answering.registry import answering_of
    from recsys.serving.export.options import ExportOptions
    from recsys.serving.export.query_encoding import EncodingSize
    from recsys.serving.export.tuning import Tuning

    if target is None and not asked.tune:
        raise ConfigError("say what to export --to, or --tune to choose an index by measuring")
    if asked.memory is not None and not asked.tune:
        raise ConfigError("--memory goes with --tune, which chooses an index that fits")
    options = ExportOptions(
        min_recall=asked.min_recall,
        encoded=None if asked.encoded is None else EncodingSize(*asked.encoded),
        columns=asked.columns,
        reduced=None if asked.reduce is None else ReductionSize.of(asked.reduce),
        tuning=Tuning(asked.memory) if asked.tune else None,
    )
    return answering_of(Bundle.open(folder)).export(folder, target, out, options)


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
    from recsys.serving.export.manifest import EXPORT_FILE

    shown = path_at(folder)
    if not isinstance(shown, RemotePath):
        return _verified(shown, shown)
    source = shown if (shown / EXPORT_FILE).is_file() else bundle_at(shown)
    with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
        fetch_folder(source, Path(scratch))
        return _verified(Path(scratch), source)


def _verified(path: Path, shown: Path) -> dict[str, Any]:
    """Check what is in `path`, which is a copy of `shown` where that is in a store."""
    from recsys.serving.export.manifest import EXPORT_FILE, open_export

    if (path / EXPORT_FILE).exists():
        export = open_export(path, shown)
        facts = {"model_id": export.facts["model_id"], "target": export.facts["target"]}
        return {"folder": str(shown), **facts, "files": len(export.names()) + 1}
    if not (path / MANIFEST).exists():
        raise NotFoundError(
            f"{shown}: neither an export (no {EXPORT_FILE}) nor a model's bundle (no {MANIFEST})"
        )
    bundle = Bundle.open(path, shown)
    return {"folder": str(shown), "model_id": bundle.model_id, "files": len(bundle.names()) + 1}


def tuning_table(tuning: Mapping[str, Any]) -> str:
    """Return lines: of each kind the cheapest search that is enough, else the best that it has."""
    best: dict[str, Mapping[str, Any]] = {}
    for one in sorted(tuning["tried"], key=_order):
        best.setdefault(one["kind"], one)
    found = sorted(best.values(), key=_order)
    lines = [f"{'kind':<9} {'search':<24} {'recall@10':>9} {'us a query':>10} {'memory':>11} built"]
    for one in found:
        search = ", ".join(f"{name} {value}" for name, value in one["parameters"].items())
        end = "" if one["enough"] else "  " + _lacks(one, tuning)
        lines.append(
            f"{one['kind']:<9} {search:<24} {one['recall_at_10']:>9.4f} {one['cpu_us']:>10.1f} "
            f"{size_text(one['memory_bytes']):>11} {one['build_cpu_seconds']:.1f} s{end}"
        )
    lines += [f"{kind}: not tried: {why}" for kind, why in tuning["skipped"].items()]
    return "\n".join(lines)


def _order(one: Mapping[str, Any]) -> tuple[bool, float]:
    return not one["enough"], one["cpu_us"] if one["enough"] else -one["recall_at_10"]


def _lacks(one: Mapping[str, Any], tuning: Mapping[str, Any]) -> str:
    return "finds too little" if one["recall_at_10"] < tuning["min_recall"] else "too large"
