"""The best reachable ranking of a built-in world, as a ranker to compare the model with."""

import numpy as np
from numpy.typing import NDArray

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.world.world import RetailWorld
from recsys.training.evaluation.evaluate import ExtraRankers, Ranker, score_ranker
from recsys.training.evaluation.results import BEST_REACHABLE


def best_reachable(world: RetailWorld) -> ExtraRankers:
    """Return a factory of the ranker that knows the world's preference function."""

    def rankers(data: Dataset, queries: Queries, /, *, filter_seen: bool) -> dict[str, Ranker]:
        del queries
        times = data.tables.events.time[data.part == data.part.max()]
        start, end = int(times.min()) // 1_000_000, int(times.max()) // 1_000_000
        user_of = _positions(data.tables.users.column(data.schema.user_key).to_pylist())
        item_of = _positions(data.tables.items.column(data.schema.item_key).to_pylist())

        def score(asked: Queries) -> NDArray[np.float32]:
            known = world.best_reachable(user_of[asked.users], start, end)[:, item_of]
            return np.ascontiguousarray(known, np.float32)

        return {BEST_REACHABLE: score_ranker(score, filter_seen=filter_seen)}

    return rankers


def _positions(ids: list[str]) -> NDArray[np.int64]:
    """The world numbers its users and items as their ids say: "u000123" is row 123."""
    return np.array([int(name[1:]) for name in ids])
