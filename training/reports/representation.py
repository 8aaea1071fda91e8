"""The report's curves of the space during training: effective rank, alignment, uniformity."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recsys.training.reports.drawing import COLOURS, Sheet, for_both, panels

_PANELS = {
    "rankme": "Effective rank of the items",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
}


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

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, len(shown), 2.4)
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
        return figure

    return for_both(draw, "Effective rank, alignment and uniformity over training steps")
