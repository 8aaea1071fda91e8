"""The job behind `recsys evaluate`: a bundle evaluated again on the data it names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.features.bundle.measured import Kept
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.evaluation.results import ModelEvaluation
from recsys.training.families.load import parse_config
from recsys.training.families.opened import OpenedModel
from recsys.training.families.registry import family_of
from recsys.training.jobs.opening import open_model


def evaluate_bundle(
    path: Path,
    report: Path,
    *,
    settings: Mapping[str, Any] | None = None,
) -> ModelEvaluation:
    """Evaluate the bundle at `path` on its own split of the data, and write `report`.

    That is on its test part, or where it has none on its validation part.

    Args:
        path: the bundle's folder.
        report: HTML file to write.
        settings: keys of the configuration with other values than in training:
            {"evaluation.ks": [5]}.

    Raises:
        ConfigError: nothing of its data was held out, they cannot be evaluated on again, a key of
            `settings` is not about evaluation, or its value is wrong.
        NotFoundError: no bundle, or its data are no longer where they were.
        IntegrityError: a file of the bundle is not what was written.
    """
    opened = open_model(path)
    _check_held_out(opened)
    opened = replace(opened, config=_with(opened.config, settings or {}))
    return family_of(opened.config).evaluate(opened, report)


def _check_held_out(opened: OpenedModel) -> None:
    """Refuse a model that was trained on all rows.

    Raises:
        ConfigError: it was; the remedies are named.
    """
    if opened.config.split.evaluated is not None:
        return
    chosen = Kept.of(opened.bundle).chosen_by
    instead = "" if chosen is None else f"evaluate {chosen.words}, which chose its settings, or "
    raise ConfigError(
        f"{opened.bundle.path}: the model was trained on all rows of its data, and nothing is held "
        f"out to evaluate it on: {instead}compare it with others on newer rows (recsys compare "
        "--on CONFIG)"
    )


def _with(config: ExperimentConfig, settings: Mapping[str, Any]) -> ExperimentConfig:
    """Return the model's configuration with other values of its section `evaluation`."""
    fixed = family_of(config).evaluated_once
    names = [name for name in type(config.evaluation).model_fields if name not in fixed]
    allowed = [f"evaluation.{name}" for name in names]
    for key in settings:
        if key not in allowed:
            raise ConfigError(
                f"{key}: this {config.model.kind} is trained; what can be set of its evaluation is "
                f"{', '.join(allowed)}"
            )
    raw = config.model_dump(mode="json", by_alias=True)
    raw["evaluation"] |= {key.partition(".")[2]: value for key, value in settings.items()}
    return parse_config(raw, source="evaluate")
