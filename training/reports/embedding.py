"""The section of a report on the embedding table."""

import math
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.embeddings.diagnostics import Diagnosis, NormBucket
from recsys.training.reports.drawing import COLOURS, INK, Sheet, for_page, panels

TEMPLATE = Path(__file__).with_name("embedding_section.html")


def embedding_section(found: Diagnosis) -> str:
    """Return the section as HTML: the load, a table of the features, the norms by frequency."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = _share
    environment.tests["finite"] = math.isfinite
    return environment.get_template(TEMPLATE.name).render(
        table=found,
        features=sorted(found.features, key=lambda one: (-one.cardinality, one.name)),
        norms=norms(found),
    )


def norms(found: Diagnosis) -> str | None:
    """Draw how long the vectors are by how often their value was seen; None without a value."""
    shown = [bucket for bucket in found.norms if bucket.num_values]
    if not shown:
        return None
    longest = max(bucket.lookup_norm for bucket in shown)

    def draw(sheet: Sheet) -> Figure:
        figure, (axis,) = panels(sheet, 1, 0.7 + 0.46 * len(shown))
        places = range(len(shown), 0, -1)
        for y, bucket in zip(places, shown, strict=True):
            norm = bucket.lookup_norm
            axis.plot([0, norm], [y, y], color=COLOURS[0], lw=2.4, solid_capstyle="round")
            axis.plot([norm], [y], "o", color=COLOURS[0], ms=7, clip_on=False)
            axis.annotate(f"{norm:.3f}", (norm, y), (8, 0), textcoords="offset points", va="center")
        labels = [f"{_times(bucket)}\n(n={bucket.num_values:,})" for bucket in shown]
        axis.set_yticks(places, labels)
        axis.tick_params(axis="y", colors=INK)
        axis.set_ylim(0.4, len(shown) + 0.6)
        axis.set_xlim(0, 1.15 * longest or 1)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(visible=False, axis="y")
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("mean L2 norm, a lookup; n: values")
        return figure

    return for_page(draw, "Mean norm of the vectors by how often their value was seen in training")


def _times(bucket: NormBucket) -> str:
    if bucket.high is None:
        return f"seen {bucket.low:,} times or more"
    if bucket.low == bucket.high:
        return "seen once" if bucket.low == 1 else f"seen {bucket.low:,} times"
    return f"seen {bucket.low:,} to {bucket.high:,} times"


def _share(value: float) -> str:
    if 0 < value < 0.001:
        return "< 0.1%"
    if 0.999 < value < 1:
        return "> 99.9%"
    return f"{value:.1%}"
