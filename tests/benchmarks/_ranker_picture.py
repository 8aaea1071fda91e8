"""The picture of `ranker_peers`: test AUC by the processor time that a training has taken."""

from itertools import accumulate
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
TITLES = {"frappe": "Frappe, no rates", "ml1m": "MovieLens-1M with ids"}
COLOURS = {
    "mlp": "tab:blue",
    "dcn": "tab:orange",
    "autoint+": "tab:green",
    "finalmlp": "tab:red",
}
TICKS = (20, 50, 100, 200, 500)
LINES = {"fuxictr": ("--", "FuxiCTR "), "deepctr": (":", "DeepCTR-Torch ")}


def best_so_far(curve: list[dict[str, float]]) -> list[float]:
    """Return, after each epoch, the test AUC of the epoch that is the best on validation rows."""
    pairs = [(point["validation_auc"], point["test_auc"]) for point in curve]
    return [test for _, test in accumulate(pairs, max)]


def draw(curves: dict[str, Figures], path: Path) -> None:
    """Draw a panel for each data set; ours as whole lines, other libraries' broken."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, axes = pyplot.subplots(
        1, len(curves), figsize=(5.2 * len(curves), 4.2), squeeze=False, layout="constrained"
    )
    for axis, (data, models) in zip(axes[0], curves.items(), strict=True):
        top = 0.0
        for name, point in models.items():
            library, _, model = name.rpartition(" ")
            if model not in COLOURS or not point["runs"][0].get("curve"):
                continue
            style, prefix = LINES.get(library, ("-", ""))
            curve = point["runs"][0]["curve"]
            found = best_so_far(curve)
            axis.plot(
                [one["cpu_s"] for one in curve],
                found,
                style,
                color=COLOURS[model],
                label=prefix + model,
                linewidth=1.6,
            )
            top = max(top, *found)
        axis.set_xscale("log")
        axis.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_ylim(top - 0.03, top + 0.002)
        axis.set_title(TITLES[data], fontsize=10)
        axis.set_xlabel("CPU seconds of training, one thread")
        axis.set_ylabel("test AUC")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
