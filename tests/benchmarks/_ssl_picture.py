"""The picture of `ssl_curves`: gains over no self-supervision by the share of training rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
TITLES = {"world": "built-in world", "ml1m": "MovieLens-1M", "sports": "Sports", "beauty": "Beauty"}
METRICS = {"towers": "recall_at_20", "rankers": "auc", "sessions": "recall_at_20"}
NAMES = {"recall_at_20": "recall@20", "auc": "AUC"}
COLOURS = {
    "random": "tab:blue",
    "correlated": "tab:red",
    "dropout": "tab:grey",
    "items": "tab:blue",
    "attributes": "tab:red",
    "contrast": "tab:green",
}
COLUMNS = 4
SHARES = (1, 3, 10, 30, 100)
USUAL = 20
"""Features of an item of the world."""


def panels_of(points: Sequence[Figures]) -> dict[tuple[str, str], list[Figures]]:
    """Return the points of each curve: family and data set, by share."""
    panels: dict[tuple[str, str], list[Figures]] = {}
    for point in sorted(points, key=lambda one: one["percent"]):
        if point["features"] in (None, USUAL) and (point["rates"], point["keep"]) == (1, "rows"):
            panels.setdefault((point["family"], point["data"]), []).append(point)
    families = list(METRICS)
    return dict(sorted(panels.items(), key=lambda one: families.index(one[0][0])))


def draw(points: Sequence[Figures], path: Path) -> None:
    """Draw a panel a family and data set, all above tail; intervals as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = panels_of(points)
    bands = -(-len(panels) // COLUMNS)
    figure, axes = pyplot.subplots(
        2 * bands,
        COLUMNS,
        figsize=(3.1 * COLUMNS, 3.9 * bands),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    for number, ((family, data), own) in enumerate(panels.items()):
        band, column = divmod(number, COLUMNS)
        for row, part in enumerate(("all", "tail")):
            axis = axes[2 * band + row][column]
            axis.set_axis_on()
            _panel(axis, own, METRICS[family], part)
            axis.set_title(f"{family}, {TITLES[data]}: {part}", fontsize=9)
            axis.tick_params(labelsize=7)
        axes[2 * band][column].legend(fontsize=7)
        axes[2 * band + 1][column].set_xlabel("% of the training rows", fontsize=8)
    figure.suptitle("Gain over no self-supervision, with 95 % intervals", fontsize=11)
    figure.savefig(path, dpi=75)


def _panel(axis: Any, points: Sequence[Figures], metric: str, part: str) -> None:
    arms = [arm for arm in COLOURS if any(arm in point["arms"] for point in points)]
    axis.axhline(0, color="black", linewidth=0.8)
    for number, arm in enumerate(arms):
        own = [p for p in points if arm in p["arms"] and part in p["arms"][arm]]
        if not own:
            continue
        found = [p["arms"][arm][part][metric] for p in own]
        gains = [one["gain"] for one in found]
        low, high = zip(*(one["interval"] for one in found), strict=True)
        # Side by side, so that bars do not hide each other.
        x = [p["percent"] * 1.12 ** (number - (len(arms) - 1) / 2) for p in own]
        below = [max(gain - one, 0) for gain, one in zip(gains, low, strict=True)]
        above = [max(one - gain, 0) for gain, one in zip(gains, high, strict=True)]
        axis.errorbar(
            x, gains, yerr=[below, above], fmt="o-", ms=3, lw=1, color=COLOURS[arm], label=arm
        )
    axis.set_xscale("log")
    axis.set_xticks(SHARES, [f"{one:g}" for one in SHARES])
    axis.set_xlim(SHARES[0] * 0.7, SHARES[-1] * 1.4)
    axis.minorticks_off()
    axis.set_ylabel(NAMES[metric], fontsize=8)
    axis.grid(alpha=0.3)
