"""Models that were trained before, as sources of a pipeline: used as they are.

Joining learns on the validation rows, so that such a model must not have seen these: it has to be
of the same data and the same split.
"""

from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.training.families.chosen import keys_of_bundle
from recsys.training.families.opened import RECOUNTED
from recsys.training.families.pipeline.config import PipelineExperiment


def trained_sources(config: PipelineExperiment) -> dict[str, Path]:
    """Return the bundles of the sources that were trained before, by name."""
    pairs = zip(config.model.names, config.model.sources, strict=True)
    return {name: Path(one.model) for name, one in pairs if isinstance(one.model, str)}


def check_trained(config: PipelineExperiment, number: int) -> None:
    """Refuse a trained model that cannot be a source, whatever the data.

    Raises:
        NotFoundError, IntegrityError: there is no such bundle, or it is damaged.
        ConfigError: why it cannot.
    """
    source, name = config.model.sources[number], config.model.names[number]
    assert isinstance(source.model, str)
    beside = [one for one in ("training", "embedding", "sessions") if getattr(source, one)]
    if beside:
        raise ConfigError(
            f"model.sources: {name}: a trained model is used as it is, and {beside[0]} would "
            "change nothing: leave it out, or write the model's settings in place of its name"
        )
    found = ModelBundle.read(Path(source.model))
    about = found.description
    if about.has_sources:
        raise ConfigError(
            f"model.sources: {name}: a pipeline is no source of another one: name its sources here"
        )
    if about.gives_rows:
        raise ConfigError(
            f"model.sources: {name}: {about.kind} is a ranker, which scores rows and names no "
            "items: give a model that retrieves, or a plain model"
        )
    for feature in found.schema.relation_features:
        raise ConfigError(
            f"model.sources: {name}: it reads the window '{feature.name}', and windows of a "
            "pipeline are read by its ranker alone: train it without, or give the window to "
            "model.rank"
        )
    if about.sessions is not None and found.schema.interactions.session is not None:
        raise ConfigError(
            f"model.sources: {name}: its sessions are cut by a column, which requests to a "
            "pipeline do not hold: train it with sessions.inactivity_minutes"
        )
    _check_split(config, name, found)


def check_trained_fits(name: str, path: Path, fingerprint: str) -> None:
    """Refuse a trained model of other data than those with this fingerprint.

    Raises:
        ConfigError: it is one.
    """
    if ModelBundle.read(path).bundle.manifest["facts"]["data_fingerprint"] != fingerprint:
        raise ConfigError(
            f"model.sources: {name}: it was trained on other data than these, so that it may have "
            "seen the rows on which joining learns, or know other items: train it on these data, "
            "or write its settings in place of its name"
        )


def _check_split(config: PipelineExperiment, name: str, found: ModelBundle) -> None:
    if config.final is not None:
        return
    keys: dict[str, Any] = keys_of_bundle(found)
    own = config.split.model_dump(mode="json", by_alias=True)
    differ = [one for one in own if keys["split"].get(one) != own[one]]
    all_rows = found.bundle.manifest["facts"].get(RECOUNTED, {}).get("rows") == "all"
    if differ or all_rows:
        why = "all rows were counted" if all_rows else f"split.{differ[0]} differs"
        raise ConfigError(
            f"model.sources: {name}: it was trained with other held-out rows than the pipeline's "
            f"({why}), so that it may have seen the rows on which joining learns: train it with "
            "the pipeline's section 'split', or write its settings in place of its name"
        )
