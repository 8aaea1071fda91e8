"""How charts are drawn: inline SVG in the page's colours and font, for a wide and a narrow page.

Matplotlib draws with placeholder colours; in the SVG they become CSS variables, so that light and
dark look right. Text stays text, in the page's font. What does not fit a telephone at a size one
can read is drawn twice, and the page shows one of both (`report_style.html`).
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Placeholders of CSS variables; no chart may use another colour.
INK, SOFT, LINE, BEST_COLOUR, PAGE = "#0000f1", "#0000f2", "#0000f3", "#0000f4", "#0000f5"
COLOURS = tuple(f"#0000{0xE0 + number:x}" for number in range(14))
VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    BEST_COLOUR: "var(--best)",
    PAGE: "var(--page)",
    **{colour: f"var(--ranker-{number})" for number, colour in enumerate(COLOURS)},
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # else matplotlib looks for ticks above the chart, again and again
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
}


@dataclass(frozen=True)
class Sheet:
    """What is drawn for: its CSS class, its width in inches, the most charts side by side.

    The page shows WIDE ones at 857 pixels or more and the others at 328 or more: text of 9 or of
    10 points is then 11 pixels high or more.
    """

    css: str
    width: float
    columns: int


WIDE, NARROW = Sheet("wide-page", 9.6, 3), Sheet("narrow-page", 4.0, 1)
ANY = Sheet("any-page", 4.0, 1)
"""Of charts that are small enough for either page."""


def panels(sheet: Sheet, number: int, height: float, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Return a figure of charts, at most `columns` side by side, and the charts.

    Args:
        sheet: what is drawn for.
        number: of charts.
        height: inches of one of them.
        columns: side by side, where the sheet has space.
    """
    columns = min(columns, sheet.columns, number)
    rows = -(-number // columns)
    figure = Figure(figsize=(sheet.width, rows * height))
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def for_both(draw: Callable[[Sheet], Figure], label: str) -> str:
    """Return a chart as two SVG elements, of which a page shows the one that fits its width."""
    return "".join(for_page(draw, label, sheet) for sheet in (WIDE, NARROW))


def for_page(draw: Callable[[Sheet], Figure], label: str, sheet: Sheet = ANY) -> str:
    """Return a chart as an SVG element."""
    with matplotlib.rc_context(STYLE):
        return _svg(draw(sheet), label, sheet.css)


def _fix_empty_labels(figure: Figure) -> None:
    """Give labels without text a place, else matplotlib measures every tick to find one."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0.5, 0.5)


def _svg(figure: Figure, label: str, css: str) -> str:
    _fix_empty_labels(figure)
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)  # matplotlib leaves some of it untyped
    canvas.print_svg(buffer, metadata={"Date": None})  # `savefig` would draw all of it twice
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Ids of several charts in one page would clash; those that are referred to are hashes.
    text = re.sub(r' id="[a-zA-Z0-9]+_\d+(_\d+)*"', "", text)
    text = re.sub(r"font: [^;\"]*?(\d[\d.]*)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text.replace("<svg ", f'<svg role="img" class="{css}" aria-label="{label}" ', 1)
