"""Whether there is enough to train a model of sessions on, found out before anything is encoded."""

import numpy as np
from numpy.typing import NDArray

from recsys.features.batches.sessions import check_next_items
from recsys.features.dataset.sessions import sessions_of
from recsys.features.dataset.split import TRAIN
from recsys.features.tables.checked import Tables
from recsys.training.families.asked import check_asked
from recsys.training.families.session.config import SessionExperiment


def check_fit(config: SessionExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse a log whose training rows have no next item; part: (E,) that of each event.

    Raises:
        DataError: they have none.
    """
    sessions = sessions_of(config.schema_, tables.events, config.sessions)
    check_next_items(sessions.only(part == TRAIN))


def check_rows(config: SessionExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse the same, and parts in which nobody can be asked.

    Raises:
        ConfigError, DataError: what there is too little of.
    """
    check_fit(config, tables, part)
    check_asked(config, tables, part, config.sessions)
