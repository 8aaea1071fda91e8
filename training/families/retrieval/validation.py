"""How a model that retrieves is validated as it trains, whatever its family."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.layers.geometry import directions_of
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.engine.ranks import ALONE, World
from recsys.training.evaluation.collapse import representation_metrics
from recsys.training.evaluation.evaluate import ranking_metrics, vector_ranker


@dataclass(frozen=True)
class Validation:
    """Full-ranking metrics on the validation queries, which the ranks share."""

    model: RetrievalModel
    data: Dataset
    queries: Queries
    config: RetrievalExperiment
    world: World

    def __call__(self) -> dict[str, float]:
        """Return the metrics of the current model; none without queries."""
        evaluation, count = self.config.evaluation, len(self.queries)
        if not count:
            return {}
        rows = self.world.share(count)
        mine = self.queries.take(rows)
        items, vectors = vectors_with(self.model, self.data, mine, self.world)
        vectors, gain = self.model.without_gain(vectors)
        ranker = vector_ranker(items, vectors, filter_seen=evaluation.filter_seen, gain=gain)
        top = ranker(mine, max(evaluation.ks))
        per_query = ranking_metrics(top, mine.relevant, evaluation.ks)
        own = slice(0, min(len(rows), max(0, count - self.world.rank * len(rows))))
        sums = self.world.sum(*(float(values[own].sum()) for values in per_query.values()))
        metrics = dict(zip(per_query, (total / count for total in sums), strict=True))
        geometry = self.model.config.geometry
        seen = representation_metrics(
            directions_of(items, geometry),
            directions_of(vectors[own], geometry),
            mine.relevant.take(torch.arange(own.stop)),
            temperature=float(self.model.temperature.detach()),
        )
        aligned = self.world.sum(seen.pop("alignment", 0.0) * own.stop)[0]
        return {**metrics, **seen, "alignment": aligned / count}


def rank_with(
    model: RetrievalModel,
    data: Dataset,
    queries: Queries,
    k: int,
    filter_seen: bool,
    world: World = ALONE,
) -> Tensor:
    """Return the model's top k item rows of each query, (Q, k) int64, -1 where short.

    Of several ranks each ranks the queries that it is given, as many on every rank.
    """
    items, vectors = vectors_with(model, data, queries, world)
    vectors, gain = model.without_gain(vectors)
    ranker = vector_ranker(items, vectors, filter_seen=filter_seen, gain=gain)
    return torch.from_numpy(ranker(queries, k)).long()


def vectors_with(
    model: RetrievalModel, data: Dataset, queries: Queries, world: World = ALONE
) -> tuple[Tensor, Tensor]:
    """Return the vectors of the whole catalogue and of the queries, on the CPU.

    The ranks share the encoding of the catalogue.
    """
    device = next(model.parameters()).device
    count = data.num_items
    own_items = data.items if world.size == 1 else data.items.take(world.share(count))
    items = world.gather(catalogue_vectors(model, own_items.to(device)), count)
    vectors = query_vectors(model, queries.block.to(device), items, queries.history.to(device))
    return items.cpu(), vectors.cpu()
