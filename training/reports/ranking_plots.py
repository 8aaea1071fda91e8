"""The charts of a ranker's report."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from recsys.metrics.classification import Calibration
from recsys.training.families.ranker.evaluation import RankingEvaluation
from recsys.training.reports.plots import COLOURS, INK, SOFT, STYLE, panels, svg


@matplotlib.rc_context(STYLE)
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
    figure, axes = panels(1, len(shown), 9.6, 2.9)
    for axis, (title, points) in zip(axes, shown.items(), strict=True):
        is_loss = "loss" in title
        colour = INK if is_loss else COLOURS[0]
        axis.plot(*points.T, color=colour, lw=1.6, marker=None if len(points) > 40 else "o", ms=4)
        if not is_loss:
            best = int(np.argmax(points[:, 1]))
            axis.plot(*points[best], "o", color=colour, ms=7, mfc="none", mew=1.5)
        axis.set_title(title)
        axis.set_xlabel("training step")
    return svg(figure, "Training loss and validation AUC over training steps")


@matplotlib.rc_context(STYLE)
def compared(evaluation: RankingEvaluation) -> str:
    """Draw AUC and log loss of all rankers as dots with their 95 % intervals."""
    names = list(evaluation.results)
    figure, axes = panels(1, 2, 9.6, 0.75 + 0.36 * len(names))
    for axis, (metric, label) in zip(
        axes, {"auc": "AUC", "log_loss": "Log loss"}.items(), strict=True
    ):
        for row, name in enumerate(names):
            one = evaluation.results[name].metrics[metric]
            colour, y = COLOURS[0] if row == 0 else INK, len(names) - row
            axis.plot([one.low, one.high], [y, y], color=colour, lw=2.4, solid_capstyle="round")
            axis.plot([one.value], [y], "o", color=colour, ms=7)
            axis.annotate(
                f"{one.value:.4f}", (one.high, y), (7, 0), textcoords="offset points", va="center"
            )
        axis.set_title(label)
        axis.margins(x=0.2)
        axis.set_ylim(0.4, len(names) + 0.6)
        axis.set_yticks(range(len(names), 0, -1), names if axis is axes[0] else [""] * len(names))
        axis.tick_params(axis="y", colors=INK)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(visible=False, axis="y")
        axis.spines["left"].set_visible(False)
    return svg(figure, "AUC and log loss of all rankers, dots with 95 % intervals")


@matplotlib.rc_context(STYLE)
def calibrated(found: Calibration, before: Calibration | None = None) -> str:
    """Draw what was predicted against what happened, and the same before calibration."""
    figure, (axis,) = panels(1, 1, 5.2, 3.4)
    shown = [one for one in (before, found) if one is not None]
    top = max(float(max(one.predicted.max(), one.observed.max())) for one in shown) * 1.05
    axis.plot([0, top], [0, top], color=SOFT, lw=1, ls="--")
    if before is not None:
        axis.plot(before.predicted, before.observed, "o-", color=SOFT, lw=1, ms=3, label="before")
    axis.plot(
        found.predicted, found.observed, "o-", color=COLOURS[0], lw=1.4, ms=4, label="calibrated"
    )
    if before is not None:
        axis.legend(frameon=False)
    axis.set_xlabel("predicted probability")
    axis.set_ylabel("share of positives")
    axis.set_title(f"Calibration error {found.error:.4f}")
    return svg(figure, "Share of positives by predicted probability")
