"""What a training is estimated to take: counts times a few measured constants.

The constants are of the built-in world (10,000 to 160,000 rows) and of Amazon Beauty (198,502 rows
of 12,101 items) with what `recsys init` writes for them, baselines and report included, in one
thread; what many rows take, of drawn logs of 1 and 5 million rows. Other sizes of models, other
features and other machines take another time; the estimate is an order of magnitude, never a
promise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.dataset.split import TRAIN
from recsys.features.propose.estimate import Estimate
from recsys.features.tables.checked import Tables
from recsys.plain.linear import EaseConfig
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.families.plain.choose import BASELINES

MACHINE = "AMD EPYC"
EASE_CUBED_NS = 0.0134
"""Nanoseconds a cubed item, of solving for the weights of `ease`."""
_COUNTING = ("popularity", "popularity_recent")
_MIB, _KIB = 2**20, 2**10


@dataclass(frozen=True)
class Rates:
    """The measured constants of a kind of training.

    seconds: of any training. row_us: microseconds a row of the log, read, encoded and counted.
    epoch_row_us: microseconds a training row and epoch. asked_item_ns: nanoseconds a user of the
    part that is evaluated on and an item. alone: the share of `row_us` and `asked_item_ns` that is
    not of the baselines of `auto`; None: not measured. mib: of any training. row_kib: a row of the
    log up to `many_rows` of them; more_row_kib: each further one, as what evaluation takes grows no
    more there. ease_bytes: a squared item, where `ease` is fitted. off: the largest factor between
    an estimate and a measured training.
    """

    seconds: float
    row_us: float
    epoch_row_us: float = 0.0
    asked_item_ns: float = 0.0
    alone: float | None = None
    mib: float = 0.0
    row_kib: float = 0.0
    many_rows: int | None = None
    more_row_kib: float = 0.0
    ease_bytes: float = 0.0
    off: float = 1.9


def estimate(
    rates: Rates | None, config: ExperimentConfig, tables: Tables, part: NDArray[np.int8]
) -> Estimate | None:
    """Return what a training is estimated to take; part: (E,) that of each event.

    None where nothing was measured of such a model.
    """
    if rates is None:
        return None
    rows, items = len(part), tables.items.num_rows
    epochs, table = 1, 0
    if isinstance(config, LearnedExperiment):
        epochs = config.training.epochs
        table = config.embedding.memory_bytes * (1 + int(config.training.average_epochs > 0))
    steps = int((part == TRAIN).sum()) * epochs
    alone = 1.0 if rates.alone is None else rates.alone
    compared = alone + (1 - alone) * _share_compared(config)
    cpu = rates.seconds + (rates.row_us * compared * rows + rates.epoch_row_us * steps) / 1e6
    cpu += rates.asked_item_ns * compared * _asked(config, tables, part) * items / 1e9
    few = rows if rates.many_rows is None else min(rows, rates.many_rows)
    row_bytes = (rates.row_kib * few + rates.more_row_kib * (rows - few)) * _KIB
    memory = rates.mib + (row_bytes + table) / _MIB
    if rates.ease_bytes and _fits_ease(config, items):
        cpu += EASE_CUBED_NS * float(items) ** 3 / 1e9
        memory += rates.ease_bytes * float(items) ** 2 / _MIB
    return Estimate(memory, cpu, epochs, MACHINE, rates.off)


def _share_compared(config: ExperimentConfig) -> float:
    """Return the share of the baselines of `auto` that a model is compared with.

    Those that only count take next to nothing.
    """
    named = set(getattr(config.evaluation, "baselines", ("auto",)))  # rankers have none
    if "auto" in named:
        return 1.0
    taking = set(BASELINES) - set(_COUNTING)
    return min(1.0, len(named - set(_COUNTING)) / len(taking))


def _asked(config: ExperimentConfig, tables: Tables, part: NDArray[np.int8]) -> int:
    """Return how many users the finished model is asked for."""
    if config.split.evaluated is None:
        return 0
    users = len(distinct(tables.events.user_row[part == config.split.evaluated]))
    evaluation: Any = config.evaluation
    return min(users, getattr(evaluation, "max_queries", users))


def _fits_ease(config: ExperimentConfig, items: int) -> bool:
    """Whether `ease` is the model, or one of those that it is compared with."""
    evaluation: Any = config.evaluation
    if isinstance(config.model, EaseConfig):
        return True
    return bool({"auto", "ease"} & set(evaluation.baselines)) and items <= evaluation.ease_max_items
