"""Whether a plain model can be fitted on a log, found out before anything is encoded or fitted."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.core.errors import ConfigError
from recsys.features.dataset.sessions import sessions_of
from recsys.features.tables.checked import Tables
from recsys.plain.kind import Counted
from recsys.plain.registry import PLAIN
from recsys.training.families.asked import check_asked
from recsys.training.families.plain.config import PlainExperiment
from recsys.training.families.plain.rows import attribute_features, rows_of


def check_fit(config: PlainExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse a model that cannot be fitted on the training rows of a log.

    Args:
        config: of the model.
        tables: the log, and the items.
        part: (E,) the part of each event.

    Raises:
        ConfigError: it is too large for this machine or its own limit, or lacks what it reads.
    """
    schema, cutting = config.schema_, config.sessions
    sessions = None if cutting is None else sessions_of(schema, tables.events, cutting)
    rows = rows_of(schema, tables, part, sessions)
    # Whether there are attributes is known without their values.
    named = len(attribute_features(schema)) if PLAIN[config.model.kind].reads_attributes else 0
    unread: Any = sparse.csr_array((rows.num_items, 1), dtype=np.float32)
    refuse_unfit(config, replace(rows, attributes=(unread,) * named))


def check_rows(config: PlainExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse the same, and parts in which nobody can be asked.

    Raises:
        ConfigError: why, and what to choose.
    """
    check_fit(config, tables, part)
    check_asked(config, tables, part, config.sessions)


def refuse_unfit(config: PlainExperiment, rows: Counted) -> None:
    """Refuse a model that cannot be fitted on such rows.

    Raises:
        ConfigError: why, and what else there is.
    """
    kind = config.model.kind
    why_not = PLAIN[kind].why_not(config.model, rows, None)
    if why_not is not None:
        raise ConfigError(f"model.kind: {kind}: {why_not}")
