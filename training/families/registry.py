"""The families of models. To add one: a folder next to this file, and a line in `FAMILIES`."""

from __future__ import annotations

from typing import Any

from recsys.core.imports import on_first_use
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.family import Family
from recsys.training.families.pipeline.family import PIPELINE
from recsys.training.families.plain.family import PLAIN_MODELS
from recsys.training.families.ranker.family import RANKER
from recsys.training.families.session.family import SESSION
from recsys.training.families.two_tower.family import TWO_TOWER

with on_first_use():
    from recsys.training.evaluation.results import ModelEvaluation, NothingHeldOut
    from recsys.training.reports.console import print_line

FAMILIES: tuple[Family[Any], ...] = (TWO_TOWER, SESSION, RANKER, PLAIN_MODELS, PIPELINE)
FAMILY_OF_KIND: dict[str, Family[Any]] = {
    kind: family for family in FAMILIES for kind in family.kinds
}
"""By the values of `model.kind`."""


def show_evaluation(evaluation: ModelEvaluation) -> None:
    """Print the metrics of an evaluation as a table, or that there are none."""
    if isinstance(evaluation, NothingHeldOut):
        print_line(evaluation.words)
        return
    family = next(one for one in FAMILIES if isinstance(evaluation, one.evaluation))
    family.show(evaluation)


def family_of(config: ExperimentConfig) -> Family[Any]:
    """Return the family that an experiment's model belongs to."""
    return FAMILY_OF_KIND[config.model.kind]
