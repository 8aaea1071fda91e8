"""The report's curves of the space during training: effective rank, alignment, uniformity."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recsys.training.reports.plots import COLOURS, STYLE, panels, svg

_PANELS = {
    "rankme": "Effective rank of the items",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
}


@matplotlib.rc_context(STYLE)
def representation_curves(history: Sequence[Mapping[str, float]]) -> str | None:
    """Draw them over training steps, a panel each; None where none was logged.

    Args:
        history: points with "step" and, at validations, "validation/rankme" and the like.
    """
    curves = {
        name: [(p["step"], p[key]) for p in history if key in p]
        for name in _PANELS
        for key in (f"validation/{name}",)
    }
    shown = {name: points for name, points in curves.items() if points}
    if not shown:
        return None
    figure, axes = panels(1, len(shown), 9.6, 2.4)
    for axis, (name, points) in zip(axes, shown.items(), strict=True):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color=COLOURS[0], lw=1.6, marker="o", ms=4)
        if name != "uniformity":
            axis.set_ylim(bottom=0, top=1.1 * axis.dataLim.y1)
        else:
            axis.set_ylim(bottom=1.1 * axis.dataLim.y0, top=0)
        axis.set_title(_PANELS[name])
        axis.set_xlabel("training step")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.xaxis.set_major_locator(MaxNLocator(4))
    return svg(figure, "Effective rank, alignment and uniformity over training steps")
