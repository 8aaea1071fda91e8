"""The sources of a pipeline: each trained before what joins them learns, and once more after."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from recsys.core.errors import ConfigError
from recsys.core.key_tree import Place
from recsys.core.strict import nearest
from recsys.features.bundle.lists import ListModel
from recsys.models.rankers import RANKERS
from recsys.models.registry import PIPELINES
from recsys.pipeline.config import Ranker, Source
from recsys.training.families.chosen import as_chosen
from recsys.training.families.pipeline.config import OF_RANKERS, TAKEN, PipelineExperiment
from recsys.training.families.pipeline.lines import lines_of
from recsys.training.families.pipeline.trained import trained_sources

LOG = logging.getLogger(__name__)
FOLDER = "sources"
FIRST, LAST = "first", "last"

Train = Callable[[dict[str, Any], Path, bool], Path]
"""Trains what some keys say in a folder, with or without a report, and returns the bundle; one that
is there is kept."""


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
    """Train every source that is not trained yet, also not by a run that was stopped.

    Args:
        config: the pipeline.
        run_dir: of its run.
        train: trains one model.
        earlier: the sources as they were trained on fewer rows; then they are trained on more, for
            as many epochs as was best. None: this is the first time, without the validation rows.
    """
    stage = FIRST if earlier is None else LAST
    bundles = []
    before = trained_sources(config)
    for number, name in enumerate(config.model.names):
        if name in before:
            bundles.append(before[name] if earlier is None else earlier.bundles[number])
            LOG.info(f"source {name}, as it was trained ({bundles[-1].name})")
            continue
        keys = config.of_source(number, last=earlier is not None)
        if earlier is not None:
            keys = as_chosen(keys, earlier.models[number])
        words = "trained on all rows" if config.split.kind == "none" else _WORDS[stage]
        LOG.info(f"source {name}, {words}")
        folder = run_dir / FOLDER / f"{number}-{name}" / stage
        with lines_of(name):
            bundles.append(train(keys, folder, config.evaluation.source_reports))
    return TrainedSources.of(bundles)


def experiments_of(config: PipelineExperiment) -> list[dict[str, Any]]:
    """Return the keys of the experiments that train the sources, of both times that they are."""
    before = trained_sources(config)
    stages = (True,) if config.split.kind == "none" else (False, True)
    return [
        config.of_source(number, last=last)
        for number, name in enumerate(config.model.names)
        for last in stages
        if name not in before
    ]


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
    if isinstance(model, dict) and model.get("kind") in RANKERS:
        raise ConfigError(
            f"model.sources: {name}: {model['kind']} is a ranker, which scores rows and names no "
            "items: give a model that retrieves, or a plain model"
        )
    called = f"model.sources: {name}"
    source = config.model.sources[number]
    written = partial(_written, source, TAKEN, f"model.sources.{number}", called)
    found = parse(config.of_source(number), source=called, written=written)
    if config.schema_.interactions.session is not None and getattr(found, "sessions", None):
        raise ConfigError(
            f"model.sources: {name}: requests to a pipeline hold whole histories, which cannot be "
            "cut by a column: leave out schema.interactions.session, and cut by "
            "sessions.inactivity_minutes"
        )
    return found


def check_ranker(config: PipelineExperiment, parse: Callable[..., Any]) -> Any:
    """Return the experiment of the ranker; None: the pipeline has none of the engine.

    Args:
        config: the pipeline.
        parse: reads a configuration (`recsys.training.families.load.parse_config`).

    Raises:
        ConfigError: it is no kind of ranker, or a key of it is unknown or wrong.
    """
    rank = config.model.rank
    if not isinstance(rank, Ranker):
        return None
    kind = rank.model.get("kind") if isinstance(rank.model, dict) else None
    if kind is None:
        raise ConfigError("model.rank: missing key 'model.rank.model.kind', as in kind: dcn")
    if kind not in RANKERS:
        ways = ["none", "gbdt", *RANKERS]
        raise ConfigError(
            f"model.rank: '{kind}' is no way to rank{nearest(str(kind), ways)}: name "
            f"{', '.join(ways)}, or a file (.yaml)"
        )
    keys = config.of_ranker("candidates", ("candidate_rank",))
    written = partial(_written, rank, OF_RANKERS, "model.rank", "model.rank")
    return parse(keys, source="model.rank", written=written)


def _written(
    given: Source | Ranker, sections: tuple[str, ...], at: str, called: str, place: Place
) -> tuple[str, str] | None:
    """Return where a key of a source or a ranker was written; None: it is none of its sections."""
    own = bool(place) and place[0] in sections
    return given.written(at, called, place) if own else None
