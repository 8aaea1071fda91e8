"""Pictures of what a ranker looks at, for a file and for the report, and the report's section.

A map of attention is drawn as squares of one colour, more or less opaque: no pixels, so that in the
page it takes its colours from the page.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError
from recsys.core.remote.path import is_remote
from recsys.explanation.attention_maps import AttentionMaps
from recsys.training.explain.explanation import Explanation, RowExplanation
from recsys.training.reports.drawing import COLOURS, INK, SOFT, STYLE, Sheet, for_both
from recsys.training.reports.explanation_table import SHOWN_PAIRS, agreement_words

TEMPLATE = Path(__file__).with_name("explanation_section.html")
PICTURES = (".png", ".svg")
MAX_FIELDS = 24
"""Most fields of a picture, the most important ones."""
_PAIRS = 8
"""Most pairs of a picture."""
_ROOMY, _ROOMY_NARROW = 12, 5
"""Most fields of a map whose squares have their numbers in them."""
_PICTURE = Sheet("", 11.0, 2)
_DARKEST = 0.6
"""Opacity of the strongest square: ink stays readable on it."""
_LINE = str(STYLE["grid.color"])
_ON_WHITE = {
    **dict(zip((INK, SOFT, _LINE), ("#16191d", "#5a6370", "#d9dde3"), strict=True)),
    **dict(
        zip(
            COLOURS,
            (
                *("#0b63b0", "#b0660a", "#0a8062", "#a04a8c", "#b8432f"),
                *("#5b53b5", "#6f6a12", "#2b6f7f", "#8a5a3c", "#7c2f55"),
                *("#3f7d20", "#5f4b8b", "#a63d60", "#4a5d73"),
            ),
            strict=True,
        )
    ),
}


class _Bars(NamedTuple):
    """Bars of N fields: lengths and errors (N,), above 0 in one colour, below in another."""

    title: str
    unit: str
    length: NDArray[np.float64]
    error: NDArray[np.float64]
    form: str


class _Chart(NamedTuple):
    """Bars, and next to or above them, on the same lines, a map of attention where there is one."""

    names: Sequence[str]
    labels: Sequence[str]
    attention: AttentionMaps | None
    bars: _Bars


class _Paint(NamedTuple):
    """Colours by their placeholders in the page, and the style that uses them."""

    of: dict[str, str]
    style: Any


_PAGE = _Paint({name: name for name in _ON_WHITE}, STYLE)
_FILE = _Paint(
    _ON_WHITE,
    {
        **{key: _ON_WHITE.get(value, value) for key, value in STYLE.items()},
        "svg.fonttype": "path",
    },
)


def check_picture(path: Path) -> None:
    """Refuse what no picture can be written to, before any work is done.

    Raises:
        ConfigError: neither .png nor .svg, or no such folder.
    """
    if path.suffix not in PICTURES:
        raise ConfigError(f"--out {path}: a picture is a .png or a .svg; name it so")
    if not is_remote(path) and not path.resolve().parent.is_dir():
        raise ConfigError(
            f"--out {path}: there is no folder {path.resolve().parent}; make it first"
        )


def write_picture(path: Path, found: Explanation | RowExplanation) -> None:
    """Draw an explanation into a .png or .svg file."""
    with matplotlib.rc_context(_FILE.style):
        if isinstance(found, RowExplanation):
            figure = _row(found, _FILE)
        else:
            figure = _rows(found, _FILE, _PICTURE, _PAIRS)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        kind = path.suffix.removeprefix(".")
        with whole_file(path) as staging:
            figure.savefig(staging, format=kind, dpi=150, facecolor="white", metadata=metadata)


def explanation_section(found: Explanation) -> str:
    """Return the report's section as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    chart = for_both(
        lambda sheet: _rows(found, _PAGE, sheet), "What the model loses without each field"
    )
    pairs = [
        (" x ".join(pair), logits, found.attention and found.attention.between(*pair))
        for pair, logits in found.interactions.strongest(SHOWN_PAIRS)
    ]
    agreements = {"fields": found.field_agreement, "pairs": found.pair_agreement}
    return environment.get_template(TEMPLATE.name).render(
        found=found,
        chart=chart,
        pairs=pairs,
        agreements={what: agreement_words(one) for what, one in agreements.items() if one},
    )


def _rows(found: Explanation, paint: _Paint, sheet: Sheet, num_pairs: int = 0) -> Figure:
    importance = found.importance
    names = importance.ranking[:MAX_FIELDS]
    at = [importance.names.index(name) for name in names]
    bars = _Bars(
        "AUC lost without the field",
        f"AUC of {importance.auc:.4f} less that with the field permuted",
        importance.auc_fall[at],
        importance.auc_deviation[at],
        "z.4f",
    )
    pairs = found.interactions.strongest(num_pairs)
    labels = [_short(name, 28 if sheet.columns > 1 else 16) for name in names]
    chart = _Chart(names, labels, found.attention, bars)
    figure, below = _map_and_bars(chart, paint, sheet, len(pairs))
    if below is not None:
        logits = np.array([one for _, one in pairs])
        unit = "logits of both, beyond those of each alone"
        joint = _Bars("What pairs do to the logit together", unit, logits, 0 * logits, ".3f")
        _lines(below, [" x ".join(_short(name, 16) for name in pair) for pair, _ in pairs], paint)
        _draw_bars(below, joint, paint)
    return figure


def _row(found: RowExplanation, paint: _Paint) -> Figure:
    parts = found.contributions
    at = list(found.ranking[:MAX_FIELDS])
    names = [parts.names[field] for field in at]
    labels = [f"{_short(parts.names[field])}\n{_short(found.values[field])}" for field in at]
    bars = _Bars(
        "What each value does to the logit",
        "logit less its mean with the field of other rows",
        parts.change[at],
        parts.error[at],
        "+.3f",
    )
    figure, _ = _map_and_bars(_Chart(names, labels, found.attention, bars), paint, _PICTURE)
    title = f"{found.title}: probability {parts.probability:.3f}"
    figure.suptitle(title, x=0.01, ha="left", weight="bold", color=paint.of[INK])
    notes = "\n".join(textwrap.fill(note, 110) for note in found.notes)
    figure.supxlabel(notes, x=0.01, ha="left", size=9, color=paint.of[SOFT])
    return figure


def _map_and_bars(
    chart: _Chart, paint: _Paint, sheet: Sheet, lines_below: int = 0
) -> tuple[Figure, Axes | None]:
    """Draw bars and map; side by side they have the same lines.

    Also returned is an empty chart below them with space for `lines_below` bars, or None.
    """
    parts = ["bars"] if chart.attention is None else ["map", "bars"]
    beside = len(parts) > 1 and sheet.columns > 1
    rows: Any = [parts] if beside else [[part] for part in parts]
    heights = [1.4 + max(2.0, 0.42 * len(chart.names))] * len(rows)
    if lines_below:
        rows, heights = [*rows, ["below"] * len(rows[0])], [*heights, 0.9 + 0.32 * lines_below]
    alone = sheet is _PICTURE and not beside
    figure = Figure(figsize=(7.2 if alone else sheet.width, sum(heights)))
    axes = figure.subplot_mosaic(rows, height_ratios=heights)
    if chart.attention is not None:
        _map(axes["map"], chart.names, chart.attention, paint, sheet)
        _lines(axes["map"], chart.labels, paint)
    _lines(axes["bars"], chart.labels, paint)
    if beside:
        axes["bars"].tick_params(axis="y", labelleft=False)
    _draw_bars(axes["bars"], chart.bars, paint, beside=sheet.columns > 1)
    return figure, axes.get("below")


def _lines(axis: Axes, labels: Sequence[str], paint: _Paint) -> None:
    """Name the lines of a chart, from the top."""
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(axis="y", colors=paint.of[INK])
    axis.set_ylim(len(labels) - 0.5, -0.5)


def _map(
    axis: Axes, names: Sequence[str], attention: AttentionMaps, paint: _Paint, sheet: Sheet
) -> None:
    beside = sheet.columns > 1
    roomy = len(names) <= (_ROOMY if beside else _ROOMY_NARROW)
    at = [attention.names.index(name) for name in names]
    shares = attention.average[np.ix_(at, at)]
    strongest = float(shares.max())
    for (row, column), share in np.ndenumerate(shares):
        square = Rectangle(
            (column - 0.48, row - 0.48), 0.96, 0.96, lw=0, facecolor=paint.of[COLOURS[0]]
        )
        square.set_alpha(_DARKEST * float(share) / strongest)
        axis.add_patch(square)
        if roomy:
            at_middle: Any = {"ha": "center", "va": "center", "color": paint.of[INK]}
            axis.annotate(f"{share:.0%}", (column, row), size=9 if beside else 10, **at_middle)
    axis.set_xlim(-0.5, len(names) - 0.5)
    short = [_short(name, 16) for name in names]
    turned: dict[str, Any] = {"rotation": 40, "va": "top"}
    if not roomy:
        turned = {"rotation": 90, "va": "center"}
    axis.set_xticks(range(len(names)), short, ha="right", rotation_mode="anchor", **turned)
    axis.tick_params(axis="x", colors=paint.of[INK])
    axis.set_title("Attention: from line to column")
    _bare(axis)


def _draw_bars(axis: Axes, bars: _Bars, paint: _Paint, beside: bool = True) -> None:
    places = np.arange(len(bars.length))
    colours = [paint.of[COLOURS[4 if length < 0 else 0]] for length in bars.length]
    axis.barh(places, bars.length, height=0.62, color=colours, lw=0)
    axis.hlines(
        places, bars.length - bars.error, bars.length + bars.error, colors=paint.of[INK], lw=1.2
    )
    for place, (length, error) in enumerate(zip(bars.length, bars.error, strict=True)):
        below = length < 0
        axis.annotate(
            format(length, bars.form),
            (length - error if below else length + error, place),
            (-5 if below else 5, 0),
            textcoords="offset points",
            va="center",
            ha="right" if below else "left",
        )
    axis.axvline(0, color=paint.of[SOFT], lw=1)
    axis.margins(x=0.18 if beside else 0.4)  # space for the numbers
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_title(bars.title)
    axis.set_xlabel(textwrap.fill(bars.unit, 36))
    axis.grid(visible=False, axis="y")
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)


def _bare(axis: Axes) -> None:
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _short(value: str, length: int = 28) -> str:
    return value if len(value) <= length else value[: length - 3] + "..."
