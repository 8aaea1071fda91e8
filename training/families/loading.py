"""The tables of an experiment, read and encoded."""

from pathlib import Path

from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, prepare
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment


def load_data(config: ExperimentConfig) -> Dataset:
    """Read and encode the tables of `config`, from its cache where it has one."""
    lookups = config.embedding.lookups if isinstance(config, LearnedExperiment) else None
    parts = (config.schema_, config.data, config.policies, config.split, lookups)
    if config.cache is None:
        return prepare(*parts)
    return cached(Path(config.cache), lambda: prepare(*parts), *parts)
