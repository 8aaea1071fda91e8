"""The charts of the page of `recsys check`: rows over time, long tails, lengths of sequences."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recsys.features.propose.shape import Lengths, Shape, Tail, Timeline
from recsys.training.reports.drawing import COLOURS, Sheet, for_both, panels

PART_COLOURS = COLOURS[:3]
_SHORT = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def rows_over_time(timeline: Timeline) -> str:
    """Draw the rows of each stretch of time, the parts above each other."""
    untyped: Any = dates
    days = untyped.date2num([datetime.fromisoformat(one) for one in timeline.starts])

    def draw(sheet: Sheet) -> Figure:
        figure, (axis,) = panels(sheet, 1, 2.8)
        width = float(np.diff(days).min()) if len(days) > 1 else 1.0
        bottom = np.zeros(len(days))
        for rows, colour in zip(timeline.rows, PART_COLOURS, strict=True):
            axis.bar(days, rows, width, bottom, color=colour, align="edge", linewidth=0)
            bottom += np.array(rows)
        ticks = untyped.AutoDateLocator(tz=UTC, minticks=3, maxticks=4 if sheet.columns == 1 else 8)
        axis.xaxis.set_major_locator(ticks)
        axis.xaxis.set_major_formatter(
            untyped.ConciseDateFormatter(ticks, tz=UTC, show_offset=False)
        )
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_formatter(FuncFormatter(_short))
        axis.grid(visible=False, axis="x")
        axis.set_title(f"Rows in {len(days)} equal stretches of time")
        return figure

    return for_both(draw, "Rows over time, by part of the split")


def tails_and_lengths(shape: Shape) -> str:
    """Draw rows by rank of items and of users, and how long sequences are."""

    def draw(sheet: Sheet) -> Figure:
        figure, axes = panels(sheet, 3, 2.9)
        _draw_tail(axes[0], shape.items, "items")
        _draw_tail(axes[1], shape.users, "users")
        _draw_lengths(axes[2], shape.lengths)
        return figure

    return for_both(draw, f"Rows by rank of items and users; rows of {shape.lengths.what}")


def _draw_tail(axis: Axes, tail: Tail, what: str) -> None:
    if tail.ranks:
        axis.plot(tail.ranks, tail.rows, color=COLOURS[0], lw=2)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(FuncFormatter(_short))
        one.set_minor_formatter(FuncFormatter(lambda _value, _place: ""))
    axis.set_title(f"Rows of the {what}, by rank")
    axis.set_xlabel("rank")


def _draw_lengths(axis: Axes, lengths: Lengths) -> None:
    places = range(len(lengths.counts))
    axis.bar(places, lengths.counts, 0.8, color=COLOURS[0], linewidth=0)
    step = max(1, len(lengths.counts) // 5)
    shown = list(places)[::step]
    axis.set_xticks(shown, [_short(lengths.edges[place], 0) for place in shown])
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_formatter(FuncFormatter(_short))
    axis.grid(visible=False, axis="x")
    axis.set_title(f"{lengths.what.capitalize()} by their rows")
    axis.set_xlabel("rows from")


def _short(value: float, _place: int) -> str:
    """Return a count in a few characters: 12k."""
    for size, unit in _SHORT:
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"
