"""The report's chart of lists that end where relevance does: recall and precision at thresholds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from recsys.training.evaluation.cut_lists import CutLists, Floats
from recsys.training.reports.drawing import COLOURS, SOFT, Sheet, for_both, panels

_SHARE = FuncFormatter(lambda value, _: f"{value:.3g}")


def relevance_chart(ended: CutLists) -> str:
    """Draw recall over the mean length, and recall and precision over the threshold."""
    curve, whole, kept = ended.curve, ended.whole.recall or 1.0, ended.kept

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, 3, 2.6)
        lengths = np.arange(1, ended.by_length.size + 1)
        axes[0].plot(lengths, ended.by_length / whole, color=SOFT, lw=1.4, ls=(0, (4, 2)))
        _line(axes[0], curve.length, curve.recall / whole, (kept.length, kept.recall / whole))
        axes[0].set_title("Recall kept, by length")
        axes[0].set_xlabel("items of a list, mean")
        axes[0].set_xlim(left=0)
        axes[0].xaxis.set_major_locator(MaxNLocator(4))
        chance = ended.relevance.chance
        _line(axes[1], curve.chance, curve.recall / whole, (chance, kept.recall / whole))
        axes[1].set_title("Recall kept, by threshold")
        _line(axes[2], curve.chance, curve.precision, (chance, kept.precision))
        axes[2].axhline(ended.whole.precision, color=SOFT, lw=1.4, ls=(0, (4, 2)))
        axes[2].set_title("Precision, by threshold")
        for axis in axes[1:]:
            axis.set_xlabel("least chance of a hit (log scale)")
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(_SHARE)
            axis.xaxis.set_minor_formatter(NullFormatter())
        return figure

    return for_both(draw, "Recall and precision of lists that end where relevance does")


def _line(axis: Axes, x: Floats, y: Floats, chosen: tuple[float, float]) -> None:
    axis.plot(x, y, color=COLOURS[0], lw=1.8)
    axis.plot(*chosen, "o", color=COLOURS[0], ms=7)
    axis.set_ylim(bottom=0)
