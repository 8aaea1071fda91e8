"""The charts of a ranker's report."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from recsys.metrics.classification import Calibration
from training.report_plots import COLOURS, INK, SOFT, STYLE, panels, svg


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
def calibrated(found: Calibration) -> str:
    """Draw what was predicted against what happened."""
    figure, (axis,) = panels(1, 1, 5.2, 3.4)
    top = float(max(found.predicted.max(), found.observed.max())) * 1.05
    axis.plot([0, top], [0, top], color=SOFT, lw=1, ls="--")
    axis.plot(found.predicted, found.observed, "o-", color=COLOURS[0], lw=1.4, ms=4)
    axis.set_xlabel("predicted probability")
    axis.set_ylabel("share of positives")
    axis.set_title(f"Calibration error {found.error:.4f}")
    return svg(figure, "Share of positives by predicted probability")
