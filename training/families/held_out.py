"""What is said of a model where no row is left to test it on."""

from typing import Any

from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.split import PART_NAMES
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.evaluation.results import NothingHeldOut
from recsys.training.families.chosen import chosen_by

ALL_ROWS = "none: all rows are training rows"
ON_VALIDATION = (
    "no test part: evaluated on the validation rows, by which the model was chosen, so its figures "
    "are too good"
)


def nothing_held_out(
    config: ExperimentConfig,
    chosen: ModelBundle | None,
    rows: int,
    **more: Any,
) -> NothingHeldOut:
    """Return the evaluation of a model that was trained on all rows.

    Args:
        config: of the model.
        chosen: whose training chose the settings; None: nobody's.
        rows: how many it was trained on.
        more: of `NothingHeldOut`.
    """
    return NothingHeldOut(
        protocol={"split": ALL_ROWS, "rows": f"{rows:,} training rows"},
        metric=config.training.metric,
        chosen_by=None if chosen is None else chosen_by(chosen),
        **more,
    )


def evaluated_words(config: ExperimentConfig) -> str:
    """Say what a finished model is evaluated on, for the log."""
    part = config.split.evaluated
    if part is None:
        return "nothing is held out: not evaluated"
    return f"evaluating on {PART_NAMES[part]}"
