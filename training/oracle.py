"""The best reachable ranking of a built-in world, as a ranker beside the model."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from features.dataset import Dataset
from features.queries import Queries
from features.split import TEST
from features.synthetic import RetailWorld
from recsys.retrieval.topk import topk_of_scores
from training.evaluate import CHUNK, Ranker

if TYPE_CHECKING:
    from training.retrieval_job import ExtraRankers


def best_reachable(world: RetailWorld, *, filter_seen: bool = True) -> "ExtraRankers":
    """Return a factory of the ranker that knows the world's preference function."""

    def rankers(data: Dataset, queries: Queries) -> dict[str, Ranker]:
        del queries
        times = data.tables.events.time[data.part == TEST]
        start, end = int(times.min()) // 1_000_000, int(times.max()) // 1_000_000
        user_of = _positions(data.tables.users.column(data.schema.user_key).to_pylist())
        item_of = _positions(data.tables.items.column(data.schema.item_key).to_pylist())

        def rank(asked: Queries, k: int) -> NDArray[np.int32]:
            tops = []
            for rows in torch.arange(len(asked)).split(CHUNK):
                users = user_of[asked.users[rows.numpy()]]
                known = world.best_reachable(users, start, end)[:, item_of]
                scores = torch.from_numpy(np.ascontiguousarray(known, np.float32))
                seen = asked.seen.take(rows) if filter_seen else None
                tops.append(topk_of_scores(scores, k, seen)[1])
            return torch.cat(tops).numpy().astype(np.int32)

        return {"best_reachable": rank}

    return rankers


def _positions(ids: list[str]) -> NDArray[np.int64]:
    """The world numbers its users and items as their ids say: "u000123" is row 123."""
    return np.array([int(name[1:]) for name in ids])
