"""Whether there is enough to train a two-tower on, found out before anything is encoded."""

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.dataset.pair_sample import count_pairs
from recsys.features.dataset.split import VALIDATION
from recsys.features.tables.checked import Tables
from recsys.training.families.asked import check_asked
from recsys.training.families.two_tower.config import TwoTowerExperiment

LEAST_ITEMS = 20


LEAST_POSITIVE = 50
"""Fewer items, or fewer pairs with an interaction, are too few to fit on."""


def check_rows(config: TwoTowerExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse rows in whose parts nobody can be asked, or too few for the calibration.

    Args:
        config: of the experiment.
        tables: the log, and the items.
        part: (E,) the part of each event.

    Raises:
        ConfigError, DataError: what there is too little of.
    """
    check_asked(config, tables, part)
    check_calibration(config, tables, part)


def check_calibration(config: TwoTowerExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse a calibration that has too little to be fitted on; part: (E,) that of each event.

    Raises:
        DataError: it has.
    """
    if config.calibration == "none" or config.final is not None:
        return
    every = np.zeros(tables.items.num_rows, bool)
    every[tables.events.item_row[part <= VALIDATION]] = True
    positive, pairs = count_pairs(
        tables,
        part,
        VALIDATION,
        every,
        filter_seen=config.evaluation.filter_seen,
        active_only=config.split.kind == "leave_one_out",
    )
    if every.sum() < LEAST_ITEMS or not LEAST_POSITIVE <= positive < pairs:
        raise DataError(
            f"calibration: {config.calibration} needs {LEAST_POSITIVE} interactions with "
            f"{LEAST_ITEMS} items in the validation part, by users with training rows; choose a "
            "larger split.validation, or calibration: none"
        )
