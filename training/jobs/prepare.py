"""The job behind `recsys prepare`: what training reads, encoded on disk, without training."""

from collections.abc import Iterator
from typing import Any

from recsys.features.clicks.log import ClickEngine
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.engine.warm_start import open_earlier
from recsys.training.families.chosen import open_chosen
from recsys.training.families.encoded import Encoded, Encoding, encode_tables
from recsys.training.families.family import Family
from recsys.training.families.load import parse_config
from recsys.training.families.registry import family_of


def prepare(config: ExperimentConfig, engine: ClickEngine | None = None) -> tuple[Encoded, ...]:
    """Encode what a training of `config` reads to where it reads it from, unless it is there.

    Args:
        config: the experiment.
        engine: reads a streamed log; None: this process.

    Returns:
        What is there now: of the experiment first, then of those that it trains itself, each once.

    Raises:
        UserError: what training would raise on the same data, or the configuration names no folder.
        OSError: nothing can be written there.
    """
    found: dict[Any, Encoded] = {}
    for one in (config, *_below(config)):
        encoded = _encoded(one, engine)
        found.setdefault(encoded.path, encoded)
    return tuple(found.values())


def _below(config: ExperimentConfig) -> Iterator[ExperimentConfig]:
    for number, keys in enumerate(family_of(config).below(config)):
        yield parse_config(keys, source=f"source {number}")


def _encoded(config: ExperimentConfig, engine: ClickEngine | None) -> Encoded:
    family: Family[Any] = family_of(config)
    family.check(config)
    open_chosen(config)
    earlier = open_earlier(config) if isinstance(config, LearnedExperiment) else None
    how = Encoding(None if earlier is None else earlier.encoder, engine)
    if family.encode is not None:
        return family.encode(config, how)
    return encode_tables(config, how, family.check_rows)
