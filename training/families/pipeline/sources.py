"""The sources of a pipeline: each trained before what joins them learns, and once more after."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from recsys.core.errors import ConfigError
from recsys.features.bundle.lists import ListModel
from recsys.models.registry import PIPELINES
from recsys.training.families.chosen import as_chosen
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

    @classmethod
    def of(cls, bundles: Sequence[Path]) -> Self:
        """Open the bundles of sources."""
        return cls(tuple(bundles), tuple(map(ListModel.open, bundles)))


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
        earlier: the sources as they were trained on fewer rows; then they are trained on more, for
            as many epochs as was best. None: this is the first time, without the validation rows.
    """
    stage = FIRST if earlier is None else LAST
    bundles = []
    for number, name in enumerate(config.model.names):
        keys = config.of_source(number, last=earlier is not None)
        if earlier is not None:
            keys = as_chosen(keys, earlier.models[number])
        words = "trained on all rows" if config.split.kind == "none" else _WORDS[stage]
        LOG.info(f"source {name}, {words}")
        bundles.append(train(keys, run_dir / FOLDER / f"{number}-{name}" / stage))
    return TrainedSources.of(bundles)


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
