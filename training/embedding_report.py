"""The section of a report on the embedding table."""

from pathlib import Path

import jinja2

from recsys.embeddings.diagnostics import Diagnosis

TEMPLATE = Path(__file__).with_name("embedding_section.html")


def embedding_section(found: Diagnosis) -> str:
    """Return the section as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True
    )
    environment.filters["share"] = _share
    return environment.get_template(TEMPLATE.name).render(
        table=found,
        features=sorted(found.features, key=lambda one: -one.cardinality),
        norms=[
            (
                f"{low:,}"
                if low == high
                else f"{low:,} to {high:,}"
                if high
                else f"{low:,} or more",
                f"{values:,}",
                f"{norm:.3f}" if values else "",
            )
            for low, high, values, norm in found.norms
        ],
    )


def _share(value: float) -> str:
    return f"{value:.1%}" if value == 0 or value >= 0.001 else "< 0.1%"
