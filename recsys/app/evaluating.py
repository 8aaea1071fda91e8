"""Evaluation and explanation of a model in its folder."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.app.progress import printed
from recsys.core.errors import ArgumentError, ConfigError
from recsys.core.remote.path import path_at
from recsys.core.strict import nearest

if TYPE_CHECKING:
    from recsys.training.evaluation.results import ModelEvaluation
    from recsys.training.explain.because import ListExplanation
    from recsys.training.explain.explanation import Explanation, RowExplanation
    from recsys.training.explain.wanted import Wanted


def evaluate_folder(
    folder: Path,
    *,
    report: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> "ModelEvaluation":
    """Evaluate a bundle on the test part of its own data; see `recsys.evaluate`."""
    from recsys.training.jobs.evaluate import evaluate_bundle

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "report.html" if report is None else path_at(report)
        with printed(quiet):
            return evaluate_bundle(folder, path, settings=settings)


def explain_folder(
    folder: Path,
    *,
    user: Any = None,
    item: Any = None,
    row: int | None = None,
    wanted: Mapping[str, Any] | None = None,
    max_rows: int = 20_000,
    picture: str | Path | None = None,
    quiet: bool = True,
) -> "Explanation | RowExplanation | ListExplanation":
    """Say what a model looks at; see `recsys.explain`. wanted: where, exclude and allow."""
    from recsys.training.explain.because import ListExplanation
    from recsys.training.jobs.explain import explain_log_row, explain_model, explain_pair
    from recsys.training.reports.explanation_plots import check_picture, write_picture

    if (user is None) != (item is None) or (user is not None and row is not None):
        raise ConfigError("explain: give user and item, or row, or none of them")
    asked = _wanted(wanted or {})
    if user is None and not asked.is_everything:
        raise ConfigError(
            "explain: where, exclude and allow are of a list: give user and item with them"
        )
    if picture is not None:
        check_picture(path_at(picture))
    found: Explanation | RowExplanation | ListExplanation
    with printed(quiet):
        if user is not None:
            found = explain_pair(folder, str(user), str(item), asked)
        elif row is not None:
            found = explain_log_row(folder, row)
        else:
            found = explain_model(folder, max_rows=max_rows)
    if picture is not None and not isinstance(found, ListExplanation):
        write_picture(path_at(picture), found)
    return found


def _wanted(filters: Mapping[str, Any]) -> "Wanted":
    """Return what a list was asked for.

    Raises:
        ArgumentError: there is no such argument, or the condition is no text.
    """
    from recsys.training.explain.wanted import Wanted

    known = list(vars(Wanted()))
    for name in filters:
        if name not in known:
            others = [*known, "user", "item", "row", "max_rows", "picture", "quiet"]
            raise ArgumentError(f"recsys.explain() has no argument '{name}'{nearest(name, others)}")
    where = filters.get("where")
    if not isinstance(where, str | None):
        raise ArgumentError(f"recsys.explain(): argument 'where': must be str; got {where!r}")
    return Wanted(**filters)
