"""Whether a pipeline can be trained on a log, found out before a source is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.embeddings.memory import check_memory, free_memory_bytes
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.tables.checked import Tables
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.sources import check_ranker, check_source


def check_settings_of_sources(config: PipelineExperiment) -> None:
    """Refuse a source, or a ranker, whose settings cannot be trained with, whatever the log.

    Raises:
        ConfigError: which, and why.
    """
    from recsys.training.families.registry import family_of

    for name, source in _sources(config).items():
        try:
            family_of(source).check(source)
            if isinstance(source, LearnedExperiment):
                copies = int(source.training.average_epochs > 0)
                check_memory(source.embedding, free_memory_bytes(), copies=copies)
        except ConfigError as error:
            raise _of_source(name, error) from None
    check_ranker(config, _parse)


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

    rows = np.where(part == VALIDATION, np.int8(TRAIN), part)
    for name, source in _sources(config).items():
        try:
            family_of(source).fits(source, tables, rows)
        except ConfigError as error:
            raise _of_source(name, error) from None


def _sources(config: PipelineExperiment) -> dict[str, ExperimentConfig]:
    names = config.model.names
    return {name: check_source(config, number, _parse) for number, name in enumerate(names)}


def _parse(raw: dict[str, Any], *, source: str) -> ExperimentConfig:
    # This knows all families, and so that of pipelines.
    from recsys.training.families.load import parse_config

    return parse_config(raw, source=source)


def _of_source(name: str, error: ConfigError) -> ConfigError:
    return ConfigError(f"model.sources: {name}: {error}")
