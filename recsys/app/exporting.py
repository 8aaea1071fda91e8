"""Exports as a function: whatever suits the model's family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from recsys.bundle.directory import Bundle
from recsys.core.byte_sizes import bytes_of, size_text
from recsys.core.errors import ConfigError


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


def export_model(
    folder: Path,
    target: str | None,
    out: Path,
    min_recall: float,
    encoded: tuple[int, int] | None = None,
    tune: bool = False,
    memory: int | None = None,
) -> dict[str, Any]:
    """Export vectors, an index or a ranker's graph; return what was written and measured.

    Args:
        folder: of the bundle.
        target: what to export to; None: `tune` chooses the kind of index.
        out: folder to make.
        min_recall: an index below this is refused.
        encoded: hyperplanes and repetitions, where items are to be written as encodings.
        tune: whether the cheapest search is to be found.
        memory: bytes that its index may hold; None: any.

    Raises:
        ConfigError: the target does not suit the model, there is none, or `out` exists.
    """
    from recsys.serving.answering.registry import answering_of
    from recsys.serving.export.query_encoding import EncodingSize
    from recsys.serving.export.tuning import Tuning

    if target is None and not tune:
        raise ConfigError("say what to export --to, or --tune to choose an index by measuring")
    if memory is not None and not tune:
        raise ConfigError("--memory goes with --tune, which chooses an index that fits")
    tuning = Tuning(memory) if tune else None
    size = None if encoded is None else EncodingSize(*encoded)
    answering = answering_of(Bundle.open(folder))
    return answering.export(folder, target, out, min_recall=min_recall, encoded=size, tuning=tuning)


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
