"""The sources of a pipeline: each trained before what joins them learns, and once more after."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.features.bundle.lists import ListModel
from recsys.features.bundle.searching import VectorSearch
from recsys.models.registry import PIPELINES
from recsys.training.families.pipeline.config import PipelineExperiment

LOG = logging.getLogger(__name__)
FOLDER = "sources"
FIRST, LAST = "first", "last"

Train = Callable[[dict[str, Any], Path], Path]
"""Trains what some keys say in a folder, and returns the bundle; one that is there is kept."""


@dataclass(frozen=True)
class TrainedSources:
    """The bundles of all sources, in order, and their models."""

    bundles: tuple[Path, ...]
    models: tuple[ListModel, ...]


def train_sources(
    config: PipelineExperiment,
    run_dir: Path,
    train: Train,
    earlier: TrainedSources | None = None,
) -> TrainedSources:
    """Train every source; what a run that was stopped has trained is not trained again.

    Args:
        config: the pipeline.
        run_dir: of its run.
        train: trains one model.
        earlier: the sources as they were trained without the validation rows; then they are trained
            on these, too, for as many epochs as those chose. None: this is that first time.
    """
    stage = FIRST if earlier is None else LAST
    bundles = []
    for number, name in enumerate(config.model.names):
        keys = config.of_source(number, last=earlier is not None)
        if earlier is not None:
            keys = _as_chosen(keys, earlier.models[number])
        LOG.info(f"source {name}, {_WORDS[stage]}")
        bundles.append(train(keys, run_dir / FOLDER / f"{number}-{name}" / stage))
    models = tuple(ListModel.open(bundle) for bundle in bundles)
    return TrainedSources(tuple(bundles), models)


_WORDS = {
    FIRST: "trained on the training rows",
    LAST: "trained again, on the validation rows as well",
}


def check_source(config: PipelineExperiment, number: int, parse: Callable[..., Any]) -> Any:
    """Return the experiment of a source.

    Args:
        config: the pipeline.
        number: of the source.
        parse: reads a configuration (`recsys.training.families.load.parse_config`).

    Raises:
        ConfigError: a key is unknown or wrong, or the model gives no lists.
    """
    name = config.model.names[number]
    model = config.model.sources[number].model
    if isinstance(model, dict) and model.get("kind") in PIPELINES:
        raise ConfigError(
            f"model.sources: {name}: a pipeline is no source of another one: name its sources here"
        )
    found = parse(config.of_source(number), source=f"model.sources: {name}")
    if not hasattr(found.evaluation, "filter_seen"):
        raise ConfigError(
            f"model.sources: {name}: a {found.model.kind} scores rows and names no items: give a "
            "model that retrieves"
        )
    if config.schema_.interactions.session is not None and getattr(found, "sessions", None):
        raise ConfigError(
            f"model.sources: {name}: requests to a pipeline hold whole histories, which cannot be "
            "cut by a column: leave out schema.interactions.session, and cut by "
            "sessions.inactivity_minutes"
        )
    return found


def _as_chosen(keys: dict[str, Any], first: ListModel) -> dict[str, Any]:
    """Return the keys with what the validation rows chose for an earlier training."""
    found = dict(keys)
    epochs = first.bundle.manifest["facts"].get("best_epoch")
    if epochs is not None:
        found["training"] = {**(found.get("training") or {}), "epochs": int(epochs)}
    search = first.found_by
    settings: Any = first.description.model
    if isinstance(search, VectorSearch) and getattr(settings, "memory", None) is not None:
        memory = settings.memory.model_dump(mode="json")
        weight = 0.0
        if search.memory is not None:
            weight = search.memory.gain / float(search.model.temperature.detach())
        found["model"] = {**found["model"], "memory": {**memory, "weight": weight}}
    if "repeats" in type(settings).model_fields:  # decided, so that both score alike
        found["model"] = {**found["model"], "repeats": settings.repeats}
    return found
