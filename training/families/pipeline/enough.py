"""Whether there is enough to learn joining and ranking from, found out before a source is trained.

How many of the relevant items the sources will name is not known then, and that they name all of
them is the best case: what is too little even so is refused.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import is_among
from recsys.features.dataset.queries import drawn_users, users_to_ask
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.filters.predicate import passing
from recsys.features.pipeline.trees import check_right, stopping
from recsys.features.tables.checked import Tables
from recsys.pipeline.config import Ranker, Trees
from recsys.training.families.asked import nobody_to_ask
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.learning import check_enough, held_out_requests
from recsys.training.families.pipeline.ranking import check_parts, parts_of

Mask = NDArray[np.bool_]


def check_requests(config: PipelineExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse a log in which nobody can be asked, or too few for the ranker to learn from.

    Args:
        config: of the pipeline.
        tables: the log, and the items.
        part: (E,) the part of each event.

    Raises:
        ConfigError: what there is too little of.
    """
    users = None if config.final is not None else _users(config, tables, part, VALIDATION, None)
    if config.split.evaluated is not None:
        _users(config, tables, part, TEST, None)
    if users is None:
        return
    users = drawn_users(users, config.training.max_validation_queries, config.training.seed)
    check_enough(config, len(users))
    passes = None
    if config.model.filter is not None:
        columns = CatalogueColumns(config.schema_, lambda: tables.items)
        passes = passing(config.model.filter, columns, tables.items.num_rows)
    if isinstance(config.model.rank, Ranker | Trees):
        _check_right(config, is_among(users, _users(config, tables, part, VALIDATION, passes)))


def _users(
    config: PipelineExperiment,
    tables: Tables,
    part: NDArray[np.int8],
    asked: int,
    passes: Mask | None,
) -> NDArray[np.int64]:
    """Return the users with an item to find in a part, all of whose items count or some do."""
    only_new = config.evaluation.filter_seen
    found = users_to_ask(config.schema_, tables, part, asked, filter_seen=only_new, passes=passes)
    if not len(found) and passes is None:
        raise nobody_to_ask(config, asked)
    return found


def _check_right(config: PipelineExperiment, right: Mask) -> None:
    """Refuse requests, (B,) whether one may have a right candidate, too few of which do."""
    seed = config.training.seed
    held_out = held_out_requests(config, len(right))
    if isinstance(config.model.rank, Ranker):
        check_parts(parts_of(held_out[0], seed)[right])
        return
    for held in held_out or [np.zeros(len(right), bool)]:
        learnt = right[~held]
        check_right(learnt, stopping(len(learnt), seed))
