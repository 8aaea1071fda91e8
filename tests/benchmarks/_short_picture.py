"""The picture of `short_vectors`: recall@10 by the number of candidates that are scored whole."""

from pathlib import Path
from typing import Any

Figures = dict[str, Any]
TITLES = {"ml1m": "MovieLens-1M, two-tower", "sports": "Amazon Sports, session model"}
LINES = {
    "leanvec": ("LeanVec, closed form", "tab:red", "o-"),
    "leanvec-fw": ("LeanVec-OOD, Frank-Wolfe", "tab:orange", "s--"),
    "leanvec-shared": ("LeanVec-OOD, shared directions", "tab:green", "^--"),
    "pca": ("PCA", "tab:blue", "o-"),
    "leanvec-id": ("LeanVec-ID", "tab:grey", "v--"),
}


def draw(curves: dict[str, Figures], path: Path) -> None:
    """Draw a row a data set, a panel a width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    widths = list(next(iter(curves.values()))["widths"])
    figure, axes = pyplot.subplots(
        len(curves),
        len(widths),
        figsize=(3.3 * len(widths), 2.7 * len(curves)),
        squeeze=False,
        layout="constrained",
    )
    for row, (name, found) in zip(axes, curves.items(), strict=True):
        for axis, width in zip(row, widths, strict=True):
            for way, (label, colour, style) in LINES.items():
                recall = found["widths"][width][way]["recall_at_10"]
                depths = [int(depth) for depth in recall]
                axis.plot(
                    depths, list(recall.values()), style, ms=3, lw=1, color=colour, label=label
                )
            axis.set_xscale("log")
            axis.set_xticks(depths, [str(depth) for depth in depths])
            axis.minorticks_off()
            axis.set_title(f"{TITLES[name]}: {found['whole_dim']} to {width}", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("recall@10 after scoring", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("candidates scored by whole vectors", fontsize=8)
    axes[0][0].legend(fontsize=6)
    figure.savefig(path, dpi=85)
    pyplot.close(figure)
