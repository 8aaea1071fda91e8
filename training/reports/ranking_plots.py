"""The charts of a ranker's report."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.metrics.classification import Calibration
from recsys.training.families.ranker.evaluation import RankingEvaluation
from recsys.training.reports.drawing import COLOURS, INK, SOFT, Sheet, for_both, for_page, panels
from recsys.training.reports.plots import named_rows


def ranking_curves(history: Sequence[Mapping[str, float]]) -> str | None:
    """Draw the training loss and the validation AUC over steps; None without any point."""
    names = {"loss": "Training loss", "validation/auc": "Validation AUC (ring: best)"}
    series = {
        title: np.array([(p["step"], p[name]) for p in history if name in p])
        for name, title in names.items()
    }
    shown = {title: points for title, points in series.items() if len(points)}
    if not shown:
        return None

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(shown), 2.9)
        for axis, (title, points) in zip(axes, shown.items(), strict=True):
            is_loss = "loss" in title
            colour, marker = INK if is_loss else COLOURS[0], None if len(points) > 40 else "o"
            axis.plot(*points.T, color=colour, lw=1.6, marker=marker, ms=4)
            if not is_loss:
                best = int(np.argmax(points[:, 1]))
                axis.plot(*points[best], "o", color=colour, ms=7, mfc="none", mew=1.5)
            axis.set_title(title)
            axis.set_xlabel("training step")
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        return figure

    return for_both(draw, "Training loss and validation AUC over training steps")


def compared(evaluation: RankingEvaluation) -> str:
    """Draw AUC and log loss of all rankers as dots with their 95 % intervals."""
    names = list(evaluation.results)
    shown = {"auc": "AUC", "log_loss": "Log loss"}

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(shown), 0.75 + 0.36 * len(names))
        for axis, (metric, label) in zip(axes, shown.items(), strict=True):
            for row, name in enumerate(names):
                one = evaluation.results[name].metrics[metric]
                colour, y = COLOURS[0] if row == 0 else INK, len(names) - row
                axis.plot([one.low, one.high], [y, y], color=colour, lw=2.4, solid_capstyle="round")
                axis.plot([one.value], [y], "o", color=colour, ms=7)
                text = f"{one.value:.4f}"
                axis.annotate(text, (one.high, y), (7, 0), textcoords="offset points", va="center")
            axis.set_title(label)
            axis.margins(x=0.2)
            named_rows(axis, names)
            if sheet.columns > 1 and axis is not axes[0]:
                axis.set_yticklabels([])
        return figure

    return for_both(draw, "AUC and log loss of all rankers, dots with 95 % intervals")


def calibrated(found: Calibration, before: Calibration | None = None) -> str:
    """Draw what was predicted against what happened, and the same before calibration."""
    shown = [one for one in (before, found) if one is not None]
    top = max(float(max(one.predicted.max(), one.observed.max())) for one in shown) * 1.05

    def draw(sheet: Sheet) -> Figure:
        figure, (axis,) = panels(sheet, 1, 3.0)
        axis.plot([0, top], [0, top], color=SOFT, lw=1, ls="--")
        if before is not None:
            points = before.predicted, before.observed
            axis.plot(*points, "o-", color=SOFT, lw=1, ms=3, label="before")
        points = found.predicted, found.observed
        axis.plot(*points, "o-", color=COLOURS[0], lw=1.4, ms=4, label="calibrated")
        if before is not None:
            axis.legend(frameon=False)
        axis.set_xlabel("predicted probability")
        axis.set_ylabel("share of positives")
        axis.set_title(f"Calibration error {found.error:.4f}")
        return figure

    return for_page(draw, "Share of positives by predicted probability")
