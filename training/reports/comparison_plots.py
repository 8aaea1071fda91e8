"""The charts of a comparison, each an inline SVG or two: for a wide and a narrow page."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys.training.evaluation.comparison import ALL, ComparedModel, Comparison
from recsys.training.reports.drawing import (
    COLOURS,
    SOFT,
    VARIABLES,
    Sheet,
    for_both,
    for_page,
    panels,
)
from recsys.training.reports.plots import named_rows, words

Dot = tuple[str, float, float, float, str]
"""Name, value, low, high, colour."""


def values(comparison: Comparison, metrics: Mapping[str, str]) -> str:
    """Draw every model as a dot with its interval, a panel a metric (metrics: name -> words)."""
    colours = _colours(comparison)
    dots = {
        metric: [
            (called(one), found.value, found.low, found.high, colours[one.name])
            for one in comparison.models
            for found in [one.metrics[metric].value]
        ]
        for metric in metrics
    }
    return _dots(dots, metrics, "Every model with its 95 % interval")


def differences(comparison: Comparison, metrics: Mapping[str, str]) -> str:
    """Draw how every other model differs from the first, a panel a metric."""
    colours = _colours(comparison)
    dots = {
        metric: [
            (called(one), less.mean, less.low, less.high, colours[one.name])
            for one in comparison.models
            for less in [one.metrics[metric].less]
            if less is not None
        ]
        for metric in metrics
    }
    return _dots(dots, metrics, "Differences with 95 % intervals", zero=True)


def slices(comparison: Comparison, named: Callable[[str], str]) -> dict[str, str]:
    """Draw the differences of the models within slices: what is sliced -> its chart.

    named: what a metric is called.
    """
    groups: dict[str, list[str]] = {}
    for name in comparison.first.slices:
        if name != ALL:
            groups.setdefault(name.partition(": ")[0], []).append(name)
    return {group: _slice_chart(comparison, names, named) for group, names in groups.items()}


def legend(comparison: Comparison) -> dict[str, str]:
    """Return the CSS variable of each model but the first, by its name."""
    colours = _colours(comparison)
    return {one.name: VARIABLES[colours[one.name]] for one in comparison.trained[1:]}


def _slice_chart(comparison: Comparison, names: Sequence[str], named: Callable[[str], str]) -> str:
    first, others = comparison.first, comparison.trained[1:]
    own = first.slices[names[0]]
    metric = comparison.metric if comparison.metric in own else next(iter(own))
    names = [name for name in names if metric in first.slices[name]]
    colours = _colours(comparison)

    def draw(sheet: Sheet) -> Figure:
        figure, (axis,) = panels(sheet, 1, 1.0 + (0.3 + 0.2 * len(others)) * len(names))
        axis.axvline(0, color=SOFT, lw=1)
        for row, name in enumerate(names):
            for place, other in enumerate(others):
                y = len(names) - row + 0.22 * ((len(others) - 1) / 2 - place)
                _draw_difference(axis, other, name, metric, y, colours[other.name])
        labels = [
            f"{name.partition(': ')[2]}  (n={first.slices[name][metric].queries:,})"
            for name in names
        ]
        named_rows(axis, labels)
        axis.set_xlabel(f"difference of {named(metric)}\nn: {comparison.asked}")
        return figure

    return for_page(draw, f"Differences of {metric} by {names[0].partition(': ')[0]}")


def _draw_difference(
    axis: Axes, model: ComparedModel, name: str, metric: str, y: float, colour: str
) -> None:
    found = model.slices.get(name, {}).get(metric)
    if found is None or found.less is None:
        return
    less = found.less
    axis.plot([less.low, less.high], [y, y], color=colour, lw=2.2, solid_capstyle="round")
    axis.plot([less.mean], [y], "o", color=colour, ms=6)


def _dots(
    dots: Mapping[str, Sequence[Dot]], metrics: Mapping[str, str], label: str, *, zero: bool = False
) -> str:
    rows = max(map(len, dots.values()))

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(dots), 0.55 + 0.42 * rows)
        for place, (axis, (metric, points)) in enumerate(zip(axes, dots.items(), strict=False)):
            if zero:
                axis.axvline(0, color=SOFT, lw=1)
            for row, (_, value, low, high, colour) in enumerate(points):
                y = len(points) - row
                axis.plot([low, high], [y, y], color=colour, lw=2.4, solid_capstyle="round")
                axis.plot([value], [y], "o", color=colour, ms=7)
                text = f"{value:+.3f}" if zero else f"{value:.3f}"
                axis.annotate(text, (high, y), (7, 0), textcoords="offset points", va="center")
            axis.set_title(metrics[metric])
            axis.margins(x=0.22)
            named_rows(axis, [fill(name, 26) for name, *_ in points])
            if sheet.columns > 1 and place % sheet.columns:
                axis.set_yticklabels([])
        for axis in axes[len(dots) :]:
            axis.set_visible(False)
        return figure

    return for_both(draw, f"{label}: {', '.join(metrics.values())}")


def called(model: ComparedModel) -> str:
    """Return what a model is called: a plain one as people call it, others by their names."""
    return words(model.name) if model.is_plain else model.name


def _colours(comparison: Comparison) -> dict[str, str]:
    """Return a colour a trained model, the same in every chart; plain models share one."""
    found = {one.name: SOFT for one in comparison.models}
    trained = [one.name for one in comparison.trained]
    return found | {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(trained)}
