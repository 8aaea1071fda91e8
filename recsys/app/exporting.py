"""Exports as a function: whatever suits the model's family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from recsys.bundle.directory import Bundle
from recsys.core.byte_sizes import bytes_of, mib
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
    """Return what was tried as lines, the cheapest first of what is enough."""
    rows = sorted(tuning["tried"], key=lambda one: (not one["enough"], one["cpu_us"]))
    lines = [
        f"{'kind':<10}{'search':<26}{'recall@10':>10}{'us a query':>12}{'memory':>14}{'built':>9}"
    ]
    for one in rows:
        search = ", ".join(f"{name} {value}" for name, value in one["parameters"].items())
        end = "" if one["enough"] else "  not enough"
        lines.append(
            f"{one['kind']:<10}{search:<26}{one['recall_at_10']:>10.4f}{one['cpu_us']:>12.1f}"
            f"{mib(one['memory_bytes']):>14}{one['build_cpu_seconds']:>7.1f} s{end}"
        )
    lines += [f"{kind}: not tried: {why}" for kind, why in tuning["skipped"].items()]
    return "\n".join(lines)
