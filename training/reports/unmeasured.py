"""The report of a model that no held-out rows tell anything of: one HTML file, like the others.

It has no figures of the model. Those of the run that chose its settings, where there is one, are
called so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.core.atomic import whole_file
from recsys.embeddings.diagnostics import Diagnosis
from recsys.features.bundle.measured import Kept
from recsys.training.evaluation.results import NothingHeldOut
from recsys.training.reports.embedding import embedding_section
from recsys.training.reports.map import Map
from recsys.training.reports.plots import learning_curves
from recsys.training.reports.retrieval import metric_name, template_of

TEMPLATE = "unmeasured.html"
_MOST_METRICS = 15


@dataclass(frozen=True)
class _Table:
    """Figures that are not of the model itself; rows: metric, value, interval."""

    title: str
    note: str
    rows: tuple[tuple[str, str, str], ...]


def write_unmeasured_report(
    path: Path,
    *,
    title: str,
    config_text: str,
    evaluation: NothingHeldOut,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, float]] = (),
    item_map: Map | None = None,
    embedding: Diagnosis | None = None,
) -> None:
    """Write the report to `path`.

    Args:
        path: the HTML file; replaced as a whole.
        title: what was trained.
        config_text: the configuration, as YAML.
        evaluation: what there is to say of figures.
        facts: rows, users, drops: whatever a reader should know of the data.
        history: what the loop logged; may be empty.
        item_map: of the items' vectors, where there are any.
        embedding: diagnostics of the table.
    """
    words = evaluation.words
    html = template_of(TEMPLATE).render(
        title=title,
        verdict=f"{words[0].upper()}{words[1:]}.",
        tables=list(_tables(evaluation)),
        curves=learning_curves(history, evaluation.metric),
        map=item_map,
        embedding=None if embedding is None else embedding_section(embedding),
        facts={**evaluation.protocol, **facts},
        config_text=config_text,
    )
    with whole_file(path) as staging:
        staging.write_text(html, encoding="utf-8")


def _tables(evaluation: NothingHeldOut) -> Sequence[_Table]:
    found = []
    if evaluation.validation:
        own = Kept(test={}, validation=evaluation.validation, decides=evaluation.metric)
        note = (
            "Measured on validation requests while settings were chosen by them; the model was "
            "trained on these rows afterwards. They are no test figures."
        )
        found.append(_Table("On validation requests", note, _rows(own)))
    chosen = evaluation.chosen_by
    if chosen is not None and chosen.kept.part is not None:
        note = (
            f"{chosen.words[0].upper()}{chosen.words[1:]} chose the settings on its validation "
            f"rows. These are its figures on its {chosen.kept.part} part, not those of this model, "
            "which was trained on all rows."
        )
        found.append(_Table("The run that chose", note, _rows(chosen.kept)))
    return found


def _rows(kept: Kept) -> tuple[tuple[str, str, str], ...]:
    rows = []
    for name, value in kept.headline(_MOST_METRICS).items():
        between = kept.intervals.get(name)
        shown = "" if between is None else f"{between[0]:.4f} to {between[1]:.4f}"
        rows.append((metric_name(name), f"{value:.4f}", shown))
    return tuple(rows)
