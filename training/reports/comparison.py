"""The report of a comparison: one HTML file that needs no network, no script and no second file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.core.atomic import whole_file
from recsys.metrics.intervals import Difference
from recsys.training.evaluation.comparison import ComparedModel, Comparison, Measured
from recsys.training.reports import comparison_plots
from recsys.training.reports.comparison_plots import called
from recsys.training.reports.plots import words
from recsys.training.reports.retrieval import metric_name, template_of

TEMPLATE = "comparison_report.html"
_RANKER_METRICS = {
    "auc": "AUC",
    "log_loss": "log loss",
    "gauc": "AUC within users",
    "ndcg_at_10": "NDCG@10",
}


@dataclass(frozen=True)
class _Cell:
    """A value as text, its interval, its difference, and whether that is sure."""

    value: str
    between: str
    less: str
    sure: bool


@dataclass(frozen=True)
class _Table:
    title: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[_Cell, ...]], ...]


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the report to `path`; the file is replaced as a whole."""
    names = {metric: metric_words(metric) for metric in comparison.headline}
    html = template_of(TEMPLATE).render(
        title=f"{len(comparison.trained)} models compared",
        verdict=" ".join(verdicts(comparison)),
        warnings=comparison.warnings,
        beaten=beaten_words(comparison),
        models=comparison.trained,
        first=comparison.first.name,
        asked=comparison.asked,
        metric=metric_words(comparison.metric),
        values=comparison_plots.values(comparison, names),
        differences=comparison_plots.differences(comparison, names),
        slices=comparison_plots.slices(comparison, metric_words),
        legend=comparison_plots.legend(comparison),
        tables=_tables(comparison),
        less=[metric_words(name) for name in sorted(comparison.less_is_better)],
        left_out={words(name): why for name, why in comparison.left_out.items()},
        protocol=comparison.protocol,
    )
    with whole_file(path) as staging:
        staging.write_text(html, encoding="utf-8")


def metric_words(metric: str) -> str:
    """Return what people call a metric."""
    return _RANKER_METRICS.get(metric) or metric_name(metric)


def verdicts(comparison: Comparison) -> list[str]:
    """Say of each model but the first whether it is better or worse, and how sure that is."""
    first, *others = comparison.trained
    metric = metric_words(comparison.metric)
    said = []
    for other in others:
        gain = comparison.gain(other.name)
        if not gain.apart:
            same = "the difference is within the error of measurement"
            said.append(f"{other.name} and {first.name}: {same} ({metric} {shown(gain)}).")
            continue
        word = "better" if gain.mean > 0 else "worse"
        less = other.metrics[comparison.metric].less
        assert less is not None
        said.append(f"{other.name} is {word} than {first.name}: {metric} {shown(less)}.")
    return said


def beaten_words(comparison: Comparison) -> list[str]:
    """Say which models a plain one is better than."""
    metric, found = metric_words(comparison.metric), []
    for model in comparison.trained:
        if model.beaten_by is None or model.behind is None:
            continue
        sure = "" if model.behind.apart else ", within the error of measurement"
        plain = words(model.beaten_by)
        best = f"the plain model {plain}"
        if model.kind == model.beaten_by:
            best = f"{plain} with the settings that it has by default"
        found.append(
            f"{model.name}: {best} is better{sure} ({metric}: {model.name} minus {plain} "
            f"{shown(model.behind)})"
        )
    return found


def shown(difference: Difference) -> str:
    """Return a difference with its interval as text."""
    if math.isnan(difference.low):
        return f"{difference.mean:+.4f}"
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _tables(comparison: Comparison) -> list[_Table]:
    """Return a table a length of list, or one of all metrics where they have none."""
    of_k: dict[str, list[str]] = {}
    for metric in comparison.first.metrics:
        _, at, k = metric.rpartition("_at_")
        of_k.setdefault(k if at and comparison.asked != "rows" else "", []).append(metric)
    return [
        _Table(
            f"The first {k}" if k else "All rows",
            tuple(metric_words(metric) for metric in metrics),
            tuple((called(one), _cells(one, metrics)) for one in comparison.models),
        )
        for k, metrics in of_k.items()
    ]


def _cells(model: ComparedModel, metrics: Sequence[str]) -> tuple[_Cell, ...]:
    return tuple(_cell(model.metrics.get(metric)) for metric in metrics)


def _cell(one: Measured | None) -> _Cell:
    if one is None:
        return _Cell("-", "", "", sure=False)
    value, less = one.value, one.less
    between = "" if math.isnan(value.low) else f"{value.low:.4f} to {value.high:.4f}"
    difference = "" if less is None else shown(less)
    return _Cell(f"{value.value:.4f}", between, difference, less is not None and less.apart)
