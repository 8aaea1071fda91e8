"""What `recsys.serving.export.tuning` tried, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

PICTURE = "tuning.png"
_MARKERS = "osDv^<>PX*"


def draw(path: Path, tuning: Mapping[str, Any]) -> None:
    """Draw recall@10 against the cost of a query and against memory; the chosen one is ringed.

    Args:
        path: of the PNG.
        tuning: what the facts of a tuned index have under that name.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    measures = (("cpu_us", 1.0, "CPU microseconds a query"), ("memory_bytes", 2**20, "memory, MiB"))
    kinds = list(dict.fromkeys(trial["kind"] for trial in tuning["tried"]))
    for ax, (key, unit, label) in zip(axes, measures, strict=True):
        for number, kind in enumerate(kinds):
            own = [trial for trial in tuning["tried"] if trial["kind"] == kind]
            x = [trial[key] / unit for trial in own]
            y = [trial["recall_at_10"] for trial in own]
            marker = _MARKERS[number % len(_MARKERS)]
            ax.scatter(x, y, s=22, marker=marker, color=f"C{number % 10}", label=kind)
        chosen = tuning["chosen"]
        at = [chosen[key] / unit], [chosen["recall_at_10"]]
        ax.scatter(*at, s=160, facecolors="none", edgecolors="black", label="chosen")
        ax.axhline(tuning["min_recall"], color="grey", linewidth=0.8, linestyle="--")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    if tuning["memory_bytes"] is not None:
        axes[1].axvline(tuning["memory_bytes"] / 2**20, color="grey", linewidth=0.8, linestyle="--")
    axes[0].set_ylabel("recall@10 against exact search")
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
