"""Whether a pipeline can be trained on a log, found out before a source is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.core.strict import Written
from recsys.embeddings.memory import check_memory, free_memory_bytes
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.filters.predicate import passing
from recsys.features.pipeline.rules import RuleError, Rules
from recsys.features.pipeline.trees import library
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables
from recsys.models.retrieval_kinds import RETRIEVAL
from recsys.pipeline.config import Trees
from recsys.pipeline.rules import VECTORS, Diversify
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.engine.machine import pick_device
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.enough import check_requests
from recsys.training.families.pipeline.sources import check_ranker, check_source
from recsys.training.families.pipeline.trained import (
    check_trained,
    check_trained_fits,
    trained_sources,
)


def check_settings_of_sources(config: PipelineExperiment) -> None:
    """Refuse a source, or a ranker, whose settings cannot be trained with, whatever the log.

    Raises:
        ConfigError: which, and why.
    """
    from recsys.training.families.registry import family_of

    for number, name in enumerate(config.model.names):
        if name in trained_sources(config):
            check_trained(config, number)
    models = {f"model.sources: {name}": one for name, one in _sources(config).items()}
    if isinstance(config.model.rank, Trees):
        library()
    ranker = check_ranker(config, _parse)
    if ranker is not None:
        models["model.rank"] = ranker
    for name, model in models.items():
        try:
            family_of(model).check(model)
            if isinstance(model, LearnedExperiment):
                pick_device(model.training.device)
                copies = int(model.training.average_epochs > 0)
                check_memory(model.embedding, free_memory_bytes(), copies=copies)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None


def check_sources_fit(config: PipelineExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse a source that cannot be trained on the rows of a log.

    Args:
        config: of the pipeline.
        tables: the log, and the items.
        part: (E,) the part of each event; in the end sources are trained on the validation rows,
            too.

    Raises:
        ConfigError: which, and why.
    """
    from recsys.training.families.registry import family_of

    if config.final is None:
        for name, path in trained_sources(config).items():
            check_trained_fits(name, path, tables.fingerprint)
    more = np.where(part == VALIDATION, np.int8(TRAIN), part)
    for name, source in _sources(config).items():
        try:
            for rows in (more,) if config.final is not None else (part, more):
                family_of(source).fits(source, tables, rows)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"model.sources: {name}: {error}") from None


def check_rows(config: PipelineExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse what a pipeline cannot be trained with, before a source is.

    Args:
        config: of the pipeline.
        tables: the log, and the items.
        part: (E,) the part of each event.

    Raises:
        ConfigError: the filter or a rule does not fit the items, there is too little to learn
            from, or a source cannot be trained on the log.
    """
    check_items(config, config.schema_, tables)
    check_requests(config, tables, part)
    check_sources_fit(config, tables, part)


def check_items(config: PipelineExperiment, schema: Schema, tables: Tables) -> None:
    """Refuse a filter or a rule that does not fit the items.

    Raises:
        FilterError, RuleError, ConfigError: which, and why.
    """
    num_items = tables.items.num_rows
    columns = CatalogueColumns(schema, lambda: tables.items)
    only = config.model.filter
    if only is not None and not passing(only, columns, num_items).any():
        raise ConfigError(f"model.filter: no item passes {only!r}")
    _check_vectors(config)
    some = np.zeros((num_items, 1), np.float32)  # vectors come with the sources
    Rules.compiled(config.model.rules, columns, num_items, some)


def _check_vectors(config: PipelineExperiment) -> None:
    """Refuse a rule by vectors where no source has any, before one is trained."""
    kinds = [
        one.model.get("kind", "two_tower")
        for one in config.model.sources
        if isinstance(one.model, dict)
    ]
    kinds += [ModelBundle.read(path).description.kind for path in trained_sources(config).values()]
    if any(kind in RETRIEVAL for kind in kinds):
        return
    for number, rule in enumerate(config.model.rules, 1):
        if isinstance(rule, Diversify) and rule.diversify.by == VECTORS:
            raise RuleError(
                number,
                "diversify",
                "by: vectors, and no source has vectors of items; add one that has (two_tower, "
                "session), or name a column",
            )


def _sources(config: PipelineExperiment) -> dict[str, ExperimentConfig]:
    """Return the experiments of the sources that are to be trained."""
    names, before = config.model.names, trained_sources(config)
    return {
        name: check_source(config, number, _parse)
        for number, name in enumerate(names)
        if name not in before
    }


def _parse(raw: dict[str, Any], *, source: str, written: Written) -> ExperimentConfig:
    # This knows all families, and so that of pipelines.
    from recsys.training.families.load import parse_config

    return parse_config(raw, source=source, written=written)
