"""The charts of the report, each an inline SVG that takes its colours from the page.

Matplotlib draws with stand-in colours; in the SVG they become CSS variables, so that light and
dark look right. Text stays text, in the page's font.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.training.evaluation.results import Evaluation

BEST = "best_reachable"
CONSUMED = "taken next"
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
    BEST: "best reachable",
}
METRICS = {"recall": "recall", "hit_rate": "hit rate", "ndcg": "NDCG", "mrr": "MRR"}
# Stand-ins for CSS variables; no chart may use another colour.
INK, SOFT, _LINE, _BEST, _PAGE = "#0000f1", "#0000f2", "#0000f3", "#0000f4", "#0000f5"
COLOURS = tuple(f"#0000e{number}" for number in range(10))
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _BEST: "var(--best)",
    _PAGE: "var(--page)",
    **{colour: f"var(--ranker-{number})" for number, colour in enumerate(COLOURS)},
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.size": 10,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
}


def words(name: str) -> str:
    """Return what people call a ranker."""
    return _WORDS.get(name, name.replace("_", " "))


def colour_variables(evaluation: Evaluation) -> dict[str, str]:
    """Return the CSS variable of each ranker's colour: the same in every chart."""
    return {name: _VARIABLES[colour] for name, colour in _colours(evaluation).items()}


@matplotlib.rc_context(STYLE)
def intervals(evaluation: Evaluation, metrics: Sequence[str], labels: Sequence[str]) -> str:
    """Draw rankers as dots with their 95 % intervals, a panel a metric."""
    names, colours = list(evaluation.results), _colours(evaluation)
    figure, axes = panels(1, len(metrics), 9.6, 0.55 + 0.42 * len(names))
    for axis, metric, label in zip(axes, metrics, labels, strict=True):
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
        axis.set_title(label)
        axis.set_xlim(left=0)
        axis.margins(x=0.16)
        axis.set_ylim(0.4, len(names) + 0.6)
        axis.set_yticks(range(len(names), 0, -1), [words(name) for name in names])
        axis.tick_params(axis="y", colors=INK)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(visible=False, axis="y")
        axis.spines["left"].set_visible(False)
    for axis in axes[1:]:
        axis.set_yticklabels([])
    return svg(figure, "Dots with 95 % intervals: " + ", ".join(labels))


@matplotlib.rc_context(STYLE)
def learning_curves(history: Sequence[Mapping[str, float]], metric: str) -> str | None:
    """Draw the loss and the validation metrics over training steps; None without any point."""
    series: dict[str, list[tuple[float, float]]] = {}
    for point in history:
        for name, value in point.items():
            if name not in ("step", "epoch", "examples_per_second"):
                series.setdefault(name, []).append((point["step"], value))
    left = {
        name: series[name]
        for name in series
        if name == "loss" or name.startswith("loss/") or name.endswith("/loss")
    }
    right = {
        f"validation/{kind}_at_{metric.rpartition('_')[2]}": label
        for kind, label in METRICS.items()
    }
    shown = {label: series[name] for name, label in right.items() if name in series}
    groups = [curves for curves in (left, shown) if curves]
    if not groups:
        return None
    figure, axes = panels(1, len(groups), 9.6, 2.9)
    for axis, curves in zip(axes, groups, strict=True):
        is_loss = curves is left
        for number, points in enumerate(curves.values()):
            x, y = np.array(points).T
            colour = INK if is_loss and not number else COLOURS[number % len(COLOURS)]
            axis.plot(x, y, color=colour, lw=1.6, marker=None if len(x) > 40 else "o", ms=4)
            if not is_loss:
                best = int(np.nanargmax(y)) if np.isfinite(y).any() else 0
                axis.plot(x[best], y[best], "o", color=colour, ms=7, mfc="none", mew=1.5)
        ends = {
            label.removeprefix("loss/").replace("_", " "): np.array(points)[-1]
            for label, points in curves.items()
        }
        if is_loss and len(curves) > 1:
            _label_ends(axis, ends, (INK, *COLOURS[1:]))
        if not is_loss:
            axis.set_ylim(bottom=0)
            _label_ends(axis, ends, COLOURS)
        axis.set_title(
            "Training loss" if is_loss else f"Validation, first {_k(metric)} (ring: best)"
        )
        axis.set_xlabel("training step")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return svg(figure, "Training loss and validation metrics over training steps")


@matplotlib.rc_context(STYLE)
def metrics_by_k(evaluation: Evaluation) -> str:
    """Draw each metric over the length of the list, with 95 % bands."""
    figure, axes = panels(2, 2, 9.6, 5.6)
    colours, ks = _colours(evaluation), evaluation.ks
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
    for axis in axes[2:]:
        axis.set_xlabel("k, items shown (log scale)")
    return svg(figure, "Recall, hit rate, NDCG and MRR over the length of the list")


@matplotlib.rc_context(STYLE)
def slices(evaluation: Evaluation, side: str) -> str | None:
    """Draw recall by slice of `side` ("items", "users", ...); None where there are no slices."""
    first = next(iter(evaluation.results.values())).slices
    names = [name for name in first if name.startswith(f"{side}: ")]
    if not names:
        return None
    metric = next(key for key in first[names[0]] if key != "queries")
    figure, (axis,) = panels(1, 1, 4.7, 1.0 + 0.5 * len(names))
    colours = _colours(evaluation)
    for ranker, result in reversed(list(evaluation.results.items())):  # the model on top
        points = [
            (result.slices[name][metric], len(names) - row)
            for row, name in enumerate(names)
            if name in result.slices
        ]
        x, y = np.array(points).reshape(-1, 2).T
        look: dict[str, Any] = {"marker": "o", "ms": 9, "mec": _PAGE}
        if ranker == BEST:
            look = {"marker": "|", "ms": 12, "mew": 2}
        axis.plot(x, y, ls="", color=colours[ranker], clip_on=False, zorder=3, **look)
    labels = [f"{n.partition(': ')[2]}  (n={first[n]['queries']:,.0f})" for n in names]
    axis.set_yticks(range(len(names), 0, -1), labels)
    axis.tick_params(axis="y", colors=INK)
    axis.set_ylim(0.4, len(names) + 0.6)
    axis.set_xlim(left=0)
    axis.margins(x=0.05)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.spines["left"].set_visible(False)
    axis.set_xlabel(
        f"{_metric_words(metric)}; n: {evaluation.asked} with such an item"
        if side.startswith("item")
        else f"{_metric_words(metric)}; n: {evaluation.asked}"
    )
    return svg(figure, f"{metric} by {side}")


@matplotlib.rc_context(STYLE)
def popularity(evaluation: Evaluation, k: int) -> str:
    """Draw which share of what was recommended, and taken, lies within the n most popular items."""
    counts = evaluation.train_counts
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    shown = {name: result.top[:, :k] for name, result in evaluation.results.items() if name != BEST}
    lists = {words(name): top[top >= 0] for name, top in shown.items()}
    lists[CONSUMED] = evaluation.relevant_values.astype(np.int32)
    colours = [*(_colours(evaluation)[name] for name in shown), INK]
    figure, (axis,) = panels(1, 1, 9.6, 3.4)
    x, middles = np.arange(1, len(counts) + 1), {}
    for number, (name, rows) in enumerate(lists.items()):
        if not len(rows):
            continue
        share = np.cumsum(np.bincount(rank[rows], minlength=len(counts))) / len(rows)
        style = (0, (4, 2)) if name == CONSUMED else "solid"
        # A million items need no million points.
        keep = distinct(np.geomspace(1, len(x), 400).astype(int)) - 1
        axis.plot(x[keep], share[keep], color=colours[number], lw=2, ls=style)
        half = int(np.searchsorted(share, 0.5))
        axis.plot(x[half], 0.5, "o", color=colours[number], ms=6)
        middles[name] = (x[half], number)
    for place, (name, (half, number)) in enumerate(sorted(middles.items(), key=lambda e: e[1])):
        axis.annotate(
            f"{name}: half within {half:,}",
            (0.015, 0.93 - 0.085 * place),
            xycoords="axes fraction",
            color=colours[number],
            weight="bold",
        )
    axis.set_xscale("log")
    axis.set_xlim(1, len(counts))
    axis.set_ylim(0, 1.02)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axis.set_xlabel("the n most popular items of training (log scale)")
    axis.set_ylabel(f"share of all places in the first {k}")
    return svg(figure, "Share of recommendations within the n most popular items")


def _colours(evaluation: Evaluation) -> dict[str, str]:
    named = [name for name in evaluation.results if name != BEST]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(named)}
    return {name: colours.get(name, _BEST) for name in evaluation.results}


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of rows x columns charts, and the charts."""
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.ravel())


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


def svg(figure: Figure, label: str) -> str:
    """Return the figure as an SVG element for the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Ids of several charts in one page would clash; those that are referred to are hashes.
    text = re.sub(r' id="[a-zA-Z0-9]+_\d+(_\d+)*"', "", text)
    text = re.sub(r"font: [^;\"]*?(\d[\d.]*)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
