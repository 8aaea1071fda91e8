"""The charts of a retrieval report, each an inline SVG or two: for a wide and a narrow page."""

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.training.evaluation.results import (
    BEST_REACHABLE,
    WITHOUT_MEMORY,
    WITHOUT_RANKER,
    WITHOUT_RULES,
    Evaluation,
)
from recsys.training.reports.drawing import (
    BEST_COLOUR,
    COLOURS,
    INK,
    PAGE,
    VARIABLES,
    Sheet,
    for_both,
    for_page,
    panels,
)

BEST = BEST_REACHABLE
CONSUMED = "actual next items"
_WORDS = {
    "two_tower": "two-tower",
    "session": "session transformer",
    "popularity_recent": "recent popularity",
    "item_knn": "item kNN",
    "ease": "EASE",
    "gf_cf": "GF-CF",
    "ials": "iALS",
    "session_items": "the session's own items",
    "markov": "Markov chain",
    "markov_10": "Markov, 10 steps",
    "v_sknn": "V-SKNN",
    "sasrec": "SASRec, ids alone",
    WITHOUT_MEMORY: "without memory of pairs",
    WITHOUT_RANKER: "without ranker",
    WITHOUT_RULES: "without rules",
    BEST: "best reachable",
}
METRICS = {"recall": "recall", "hit_rate": "hit rate", "ndcg": "NDCG", "mrr": "MRR"}


def words(name: str) -> str:
    """Return what people call a ranker."""
    return _WORDS.get(name, name.replace("_", " "))


def colour_variables(evaluation: Evaluation) -> dict[str, str]:
    """Return the CSS variable of each ranker's colour: the same in every chart."""
    return {name: VARIABLES[colour] for name, colour in _colours(evaluation).items()}


def intervals(evaluation: Evaluation, metrics: Sequence[str], labels: Sequence[str]) -> str:
    """Draw rankers as dots with their 95 % intervals, a panel a metric."""
    names, colours = list(evaluation.results), _colours(evaluation)

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(metrics), 0.55 + 0.42 * len(names))
        for place, (axis, metric, label) in enumerate(zip(axes, metrics, labels, strict=True)):
            for row, name in enumerate(names):
                result = evaluation.results[name]
                value = result.metrics[metric]
                low, high = result.intervals.get(metric, (value, value))
                y = len(names) - row
                axis.plot([low, high], [y, y], color=colours[name], lw=2.4, solid_capstyle="round")
                axis.plot([value], [y], "o", color=colours[name], ms=7)
                axis.annotate(
                    f"{value:.3f}", (high, y), (7, 0), textcoords="offset points", va="center"
                )
            axis.set_title(fill(label, 30 if sheet.columns > 1 else 24))
            axis.set_xlim(left=0)
            axis.margins(x=0.16)
            named_rows(axis, [words(name) for name in names])
            if sheet.columns > 1 and place:
                axis.set_yticklabels([])
        return figure

    return for_both(draw, "Dots with 95 % intervals: " + ", ".join(labels))


def named_rows(axis: Axes, names: Sequence[str]) -> None:
    """Give the rows of a chart, n at the top to 1, their names."""
    axis.set_ylim(0.4, len(names) + 0.6)
    axis.set_yticks(range(len(names), 0, -1), names)
    axis.tick_params(axis="y", colors=INK)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)


Curves = Mapping[str, Sequence[tuple[float, float]]]


def learning_curves(history: Sequence[Mapping[str, float]], metric: str) -> str | None:
    """Draw the loss and the validation metrics over training steps; None without any point."""
    series: dict[str, list[tuple[float, float]]] = {}
    for point in history:
        for name, value in point.items():
            if name not in ("step", "epoch", "examples_per_second"):
                series.setdefault(name, []).append((point["step"], value))
    losses = {
        name: series[name]
        for name in series
        if name == "loss" or name.startswith("loss/") or name.endswith("/loss")
    }
    right = {
        f"validation/{kind}_at_{metric.rpartition('_')[2]}": label
        for kind, label in METRICS.items()
    }
    shown = {label: series[name] for name, label in right.items() if name in series}
    groups = [curves for curves in (losses, shown) if curves]
    if not groups:
        return None

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(groups), 2.9)
        for axis, curves in zip(axes, groups, strict=True):
            if curves is losses:
                _loss_curves(axis, curves)
            else:
                _metric_curves(axis, curves, f"Validation, first {_k(metric)} (ring: best)")
            axis.set_xlabel("training step")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        return figure

    return for_both(draw, "Training loss and validation metrics over training steps")


def _loss_curves(axis: Axes, curves: Curves) -> None:
    colours = (INK, *COLOURS[1:])
    for colour, points in zip(colours, curves.values(), strict=False):
        _curve(axis, points, colour)
    if len(curves) > 1:
        ends = {
            name.removeprefix("loss/").replace("_", " "): points[-1]
            for name, points in curves.items()
        }
        _label_ends(axis, ends, colours)
    axis.set_title("Training loss")


def _metric_curves(axis: Axes, curves: Curves, title: str) -> None:
    for colour, points in zip(COLOURS, curves.values(), strict=False):
        x, y = _curve(axis, points, colour)
        best = int(np.nanargmax(y)) if np.isfinite(y).any() else 0
        axis.plot(x[best], y[best], "o", color=colour, ms=7, mfc="none", mew=1.5)
    axis.set_ylim(bottom=0)
    _label_ends(axis, {name: points[-1] for name, points in curves.items()}, COLOURS)
    axis.set_title(title)


def _curve(axis: Axes, points: Sequence[tuple[float, float]], colour: str) -> NDArray[np.float64]:
    x, y = np.array(points, dtype=np.float64).T
    axis.plot(x, y, color=colour, lw=1.6, marker=None if len(x) > 40 else "o", ms=4)
    return np.array([x, y])


def metrics_by_k(evaluation: Evaluation) -> str:
    """Draw each metric over the length of the list, with 95 % bands."""
    colours, ks = _colours(evaluation), evaluation.ks

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(METRICS), 2.8, columns=2)
        for axis, (kind, label) in zip(axes, METRICS.items(), strict=True):
            ends = {}
            for name, result in evaluation.results.items():
                keys = [f"{kind}_at_{k}" for k in ks]
                y = [result.metrics[key] for key in keys]
                band = np.array([result.intervals.get(key, (np.nan, np.nan)) for key in keys]).T
                dashes = (0, (4, 2)) if name == BEST else "solid"
                axis.fill_between(ks, *band, color=colours[name], alpha=0.18, lw=0)
                axis.plot(ks, y, color=colours[name], lw=1.8, ls=dashes, marker="o", ms=4)
                ends[words(name)] = (ks[-1], y[-1])
            _log_ticks(axis, ks)
            axis.set_ylim(bottom=0)
            _label_ends(axis, ends, list(colours.values()))
            axis.set_title(f"{label[0].upper()}{label[1:]} at k")
        for axis in axes[-min(2, sheet.columns) :]:
            axis.set_xlabel("k, items shown (log scale)")
        return figure

    return for_both(draw, "Recall, hit rate, NDCG and MRR over the length of the list")


def slices(evaluation: Evaluation, side: str) -> str | None:
    """Draw recall by slice of `side` ("items", "users", ...); None where there are no slices."""
    first = next(iter(evaluation.results.values())).slices
    names = [name for name in first if name.startswith(f"{side}: ")]
    if not names:
        return None
    metric = next(key for key in first[names[0]] if key != "queries")
    colours = _colours(evaluation)

    def draw(sheet: Sheet) -> Figure:
        figure, (axis,) = panels(sheet, 1, 1.0 + 0.5 * len(names))
        for ranker, result in reversed(list(evaluation.results.items())):  # the model on top
            points = [
                (result.slices[name][metric], len(names) - row)
                for row, name in enumerate(names)
                if name in result.slices
            ]
            x, y = np.array(points).reshape(-1, 2).T
            look: dict[str, Any] = {"marker": "o", "ms": 9, "mec": PAGE}
            if ranker == BEST:
                look = {"marker": "|", "ms": 12, "mew": 2}
            axis.plot(x, y, ls="", color=colours[ranker], clip_on=False, zorder=3, **look)
        axis.set_xlim(left=0)
        axis.margins(x=0.05)
        labels = [f"{n.partition(': ')[2]}  (n={first[n]['queries']:,.0f})" for n in names]
        named_rows(axis, labels)
        axis.tick_params(axis="y", pad=7)  # a dot at 0 reaches to the left
        axis.grid(visible=True, axis="y")
        axis.set_xlabel(f"{_metric_words(metric)}\n{_slice_words(evaluation, side)}")
        return figure

    return for_page(draw, f"{metric} by {side}")


def _slice_words(evaluation: Evaluation, side: str) -> str:
    of_items = " with such an item" if side.startswith("item") else ""
    return f"n: {evaluation.asked}{of_items}"


def popularity(evaluation: Evaluation, k: int) -> str:
    """Draw which share of the recommended, and of the actual, items is among the n most popular.

    The legend says among how many of them half of it is.
    """
    counts = evaluation.train_counts
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    shown = {name: result.top[:, :k] for name, result in evaluation.results.items() if name != BEST}
    lists = {words(name): top[top >= 0] for name, top in shown.items()}
    lists[CONSUMED] = evaluation.relevant_values.astype(np.int32)
    colours = [*(_colours(evaluation)[name] for name in shown), INK]
    shares = {
        name: (np.cumsum(np.bincount(rank[rows], minlength=len(counts))) / len(rows), colour)
        for (name, rows), colour in zip(lists.items(), colours, strict=True)
        if len(rows)
    }
    halves = {name: int(np.searchsorted(share, 0.5)) for name, (share, _) in shares.items()}

    def draw(sheet: Sheet) -> Figure:
        figure, (axis,) = panels(sheet, 1, 3.2)
        x = np.arange(1, len(counts) + 1)
        # A million items need no million points.
        keep = distinct(np.geomspace(1, len(x), 400).astype(int)) - 1
        for name, (share, colour) in shares.items():
            style = (0, (4, 2)) if name == CONSUMED else "solid"
            axis.plot(x[keep], share[keep], color=colour, lw=2, ls=style)
            axis.plot(x[halves[name]], 0.5, "o", color=colour, ms=6)
        axis.set_xscale("log")
        axis.set_xlim(1, len(counts))
        axis.set_ylim(0, 1.02)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axis.set_xlabel("the n most popular items of training (log scale)")
        axis.set_ylabel(f"share of all places in the first {k}")
        return figure

    entries = "".join(
        f'<li><i style="background:{VARIABLES[shares[name][1]]}"></i>{escape(name)}: half within '
        f"{half + 1:,}</li>"
        for name, half in sorted(halves.items(), key=lambda entry: entry[1])
    )
    chart = for_both(draw, "Share of recommendations within the n most popular items")
    return f'<ul class="legend">{entries}</ul>{chart}'


def _colours(evaluation: Evaluation) -> dict[str, str]:
    named = [name for name in evaluation.results if name != BEST]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(named)}
    return {name: colours.get(name, BEST_COLOUR) for name in evaluation.results}


def _label_ends(
    axis: Axes, ends: Mapping[str, Any], colours: Sequence[str], gap: float = 0.085
) -> None:
    """Write each curve's name behind its last point, pushed apart where they would overlap."""
    bottom, top = axis.get_ylim()
    heights = [(end[1] - bottom) / (top - bottom) for end in ends.values()]
    placed = _apart(np.array(heights), gap)
    for (name, _), y, colour in zip(ends.items(), placed, colours, strict=False):
        axis.annotate(
            name,
            (1.02, y),
            xycoords="axes fraction",
            color=colour,
            va="center",
            weight="bold",
            annotation_clip=False,
        )


def _apart(heights: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Return heights at least `gap` apart, in the same order, none above 1."""
    order = np.argsort(heights)
    placed = heights[order].copy()
    for _ in range(50):
        for i in range(1, len(placed)):
            lack = gap - (placed[i] - placed[i - 1])
            if lack > 1e-6:
                placed[i] += lack / 2
                placed[i - 1] -= lack / 2
    result = np.empty_like(placed)
    result[order] = placed - max(0.0, placed.max(initial=0) - 1.0)
    return result


def _log_ticks(axis: Axes, ks: Sequence[int]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(ks, [str(k) for k in ks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _metric_words(metric: str) -> str:
    kind, _, k = metric.partition("_at_")
    return f"{METRICS.get(kind, kind)} in the first {k}"


def _k(metric: str) -> str:
    return metric.rpartition("_")[2]
