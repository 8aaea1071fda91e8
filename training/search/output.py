"""What a search leaves: a table to read, plain data, and the configuration of the best trial."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recsys.core.remote.path import is_remote
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.search.space import to_raw, with_values
from recsys.training.search.store import DONE, FAILED
from recsys.training.search.tuning import Found

SHOWN_TRIALS = 5
"""Trials besides the given configuration."""


def lines(found: Found) -> list[str]:
    """Return the search as text: the best trials side by side, what mattered, the verdict."""
    ranked = sorted(
        (one for one in found.trials if one.state != FAILED and one.repeats is None),
        key=lambda one: (one.state != DONE, -(one.value or 0.0), one.number),
    )
    base = found.baseline
    chosen = [base, *(one for one in ranked if one != base)][: SHOWN_TRIALS + 1]
    best = ["" if one != found.best else "best" for one in chosen]
    rows = [["trial", *(str(one.number) for one in chosen)], ["", *best]]
    rows[1][1] = "as given" + (", best" if best[0] else "")
    rows.append([found.metric, *("-" if o.value is None else f"{o.value:.4f}" for o in chosen)])
    rows.append(["epochs", *(str(len(one.epochs)) for one in chosen)])
    rows.append(["ended", *(one.state for one in chosen)])
    rows += [[key, *(str(one.values[key]) for one in chosen)] for key in found.space]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = []
    for name, *cells in rows:
        right = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        shown.append("  ".join([f"{name:<{widths[0]}}", *right]))
    shown += ["", *_counts(found)]
    if found.importance:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in found.importance.items())
        shown.append(f"what {found.metric} depends on (PED-ANOVA): {shares}")
    return [*shown, *verdict(found)]


def verdict(found: Found) -> list[str]:
    """Return in sentences what the search was worth, and how far its numbers can be trusted."""
    best, base = found.best, found.baseline
    if base.value is None:
        first = f"trial {best.number} has validation {found.metric} {best.value:.4f}; the "
        first += f"given configuration failed: {base.reason}"
    elif best.number == base.number:
        first = f"nothing better than the given configuration ({best.value:.4f}) was found"
    else:
        assert best.value is not None
        first = (
            f"trial {best.number} is the best: validation {found.metric} {best.value:.4f}, "
            f"{best.value - base.value:+.4f} against the given configuration "
            f"({base.value:.4f})"
        )
    return [
        first,
        f"the best of {len(found.trials)} validation values is an optimistic one, and another "
        "seed would move them all; the test part was not looked at",
    ]


def to_json(found: Found) -> dict[str, Any]:
    """Return plain data."""
    return {
        "metric": found.metric,
        "best": found.best.to_json(),
        "baseline": found.baseline.to_json(),
        "trials": [one.to_json() for one in found.trials],
        "importance": found.importance,
        "space": to_raw(found.space),
        "ended": found.ended,
        "run_dir": str(found.run_dir),
    }


def tuned_config(config: ExperimentConfig, found: Found, out: Path, folder: Path) -> str:
    """Return the whole configuration of the best trial as commented YAML.

    out: its path; paths below `folder`, that of the first one, are written relative
    to it.
    """
    best, base = found.best, found.baseline
    tuned = with_values(config, best.values)
    tuned = tuned.model_copy(update={"data": _relative(tuned, out.resolve().parent, folder)})
    changed = {k: base.values[k] for k, v in best.values.items() if v != base.values[k]}
    head = [
        f"Found by `recsys tune`: {len(found.trials)} trials, {found.ended}.",
        *verdict(found),
        f"`recsys train {out}` trains it and evaluates it on the test part.",
    ]
    text = _with_comments(dump_config(tuned), {k: f"was {v}" for k, v in changed.items()})
    return "".join(f"# {line}\n" for line in head) + text


def _counts(found: Found) -> Iterator[str]:
    """Yield how many trials ended which way, and why those that failed did."""
    counts: dict[str, int] = {}
    for one in found.trials:
        counts[one.state] = counts.get(one.state, 0) + 1
    shown = ", ".join(f"{count} {state}" for state, count in counts.items())
    yield f"{len(found.trials)} trials: {shown}; {found.ended}"
    failed = [one for one in found.trials if one.state == FAILED and one.repeats is None]
    for one in failed[:3]:
        yield f"trial {one.number} failed: {one.reason}"
    if len(failed) > 3:
        yield f"... and {len(failed) - 3} more"


def _relative(config: ExperimentConfig, here: Path, folder: Path) -> Any:
    """Paths relative to the first configuration stay relative to it; others are as they are."""

    def shown(path: str) -> str:
        if is_remote(path) or not Path(path).is_relative_to(folder.resolve()):
            return path
        return os.path.relpath(path, here)

    return config.data.model_copy(update=config.data.relocated(shown))


def _with_comments(text: str, comments: dict[str, str]) -> str:
    """Return YAML of nested mappings with a comment at the line of each key."""
    path: list[str] = []
    commented = []
    for line in text.splitlines():
        key, colon, _ = line.strip().partition(":")
        if colon and not line.lstrip().startswith("-"):
            depth = (len(line) - len(line.lstrip())) // 2
            path = [*path[:depth], key]
            comment = comments.get(".".join(path))
            line += f"  # {comment}" if comment else ""
        commented.append(line)
    return "\n".join(commented) + "\n"
