"""The tables of an experiment, read and encoded."""

from pathlib import Path

from recsys.core.remote.path import here
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, prepare
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment


def cache_folder(given: str) -> Path:
    """Return the folder of the cache.

    Raises:
        ConfigError: it is in a store.
    """
    return here(given, "cache", "encoded data are read from the disk as they are")


def load_data(config: ExperimentConfig) -> Dataset:
    """Read and encode the tables of `config`, from its cache where it has one."""
    lookups = config.embedding.lookups if isinstance(config, LearnedExperiment) else None
    parts = (config.schema_, config.data, config.policies, config.split, lookups)
    if config.cache is None:
        return prepare(*parts)
    return cached(cache_folder(config.cache), lambda: prepare(*parts), *parts)
