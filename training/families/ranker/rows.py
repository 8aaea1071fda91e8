"""The labelled rows of a ranker, from tables in memory or from a click log on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.data.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.features.batches.rows import RankingLoader
from recsys.features.clicks.loader import ClickLoader
from recsys.features.clicks.log import open_click_log
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, continued, prepare
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Drop
from recsys.training.engine.ranks import World
from recsys.training.engine.run_home import local_folder
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.enough import check_clicks, check_rows


class RowLoader(Protocol):
    """Batches of labelled rows, a pure function of (seed, epoch, step, rank)."""

    @property
    def num_steps(self) -> int:
        """Batches an epoch."""

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield the training batches of `epoch`."""

    def ordered(
        self, part: int, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield all rows of `part` in order."""

    def users(self, part: int) -> NDArray[np.integer[Any]] | None:
        """Return a number a user for each row of `part` in order; None: users are not known."""


@dataclass(frozen=True)
class RankingRows:
    """Labelled rows with their encoder and layout; rows counts those of each part.

    logit_offset: what turns the logit of a model that saw the training batches into the logit of
    the log itself: batches may hold a sample of the negative rows alone. items: the features of
    the catalogue, where there is one. known: by part, in how many rows each further outcome is.
    """

    loader: RowLoader
    schema: Schema
    encoder: FeatureEncoder
    layout: FeatureLayout
    fingerprint: str
    rows: tuple[int, ...]
    drops: tuple[Drop, ...]
    logit_offset: float = 0.0
    items: FeatureBlock | None = None
    known: tuple[tuple[int, ...], ...] = ()


def open_rows(
    config: RankerExperiment, world: World, earlier: FeatureEncoder | None = None
) -> RankingRows:
    """Read the tables of `config`, or encode its click log to disk once and open it.

    `earlier`: whose scales and known ids the encoder takes over.

    Raises:
        ConfigError, DataError: the settings or the data are wrong, a part has no rows or its label
            is always the same, or an outcome is known of no training row.
    """
    read = _streamed if config.data.stream else _in_memory
    return read(config, world, earlier)


def _in_memory(
    config: RankerExperiment, world: World, earlier: FeatureEncoder | None
) -> RankingRows:
    parts = (config.schema_, config.data, config.policies, config.split, config.embedding.lookups)
    if config.cache is None:
        data = prepare(*parts)
    else:
        with world.first_before_others():
            data = cached(Path(config.cache), lambda: prepare(*parts), *parts)
    check_rows(config, data.tables, data.part)
    return rows_of(config, continued(data, earlier))


def rows_of(config: RankerExperiment, data: Dataset) -> RankingRows:
    """Return the labelled rows of a data set in memory."""
    training = config.training
    loader = RankingLoader(
        data,
        batch_size=training.batch_size,
        seed=training.seed,
        id_dropout=training.id_dropout,
        negative_rate=training.negative_rate,
        negatives=training.negatives,
    )
    counts = tuple(loader.num_rows(part) for part in (TRAIN, VALIDATION, TEST))
    tables = data.tables
    return RankingRows(
        loader,
        data.schema,
        data.encoder,
        loader.layout,
        tables.fingerprint,
        counts,
        tables.drops,
        loader.logit_offset - log(training.positive_weight),
        data.items,
        tuple(loader.num_known(part) for part in (TRAIN, VALIDATION, TEST)),
    )


def rebatched(config: RankerExperiment, rows: RankingRows) -> RankingRows:
    """Return the same encoded rows in the batches that `config` asks for."""
    training, loader = config.training, rows.loader
    if isinstance(loader, RankingLoader):
        return rows_of(config, loader.data)
    assert isinstance(loader, ClickLoader)
    batches = ClickLoader(loader.log, batch_size=training.batch_size, seed=training.seed)
    return replace(rows, loader=batches, logit_offset=-log(training.positive_weight))


def encoded_log_folder(config: RankerExperiment) -> Path:
    """Return where a streamed log is kept once it is encoded."""
    if config.cache is None:
        return local_folder(config.output) / "encoded"
    return Path(config.cache)


def _streamed(
    config: RankerExperiment, world: World, earlier: FeatureEncoder | None
) -> RankingRows:
    """The first rank encodes, the others open what it wrote."""
    training = config.training
    cache = encoded_log_folder(config)
    parts = (config.schema_, config.data, config.policies, config.split)
    with world.first_before_others():
        click_log = open_click_log(*parts, cache, config.embedding.lookups, earlier)
    check_clicks(config, click_log)
    loader = ClickLoader(click_log, batch_size=training.batch_size, seed=training.seed)
    return RankingRows(
        loader,
        click_log.schema,
        click_log.encoder,
        click_log.layout,
        click_log.fingerprint,
        click_log.counts,
        click_log.drops,
        -log(training.positive_weight),
        known=click_log.known,
    )
