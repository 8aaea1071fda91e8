"""The two-tower task: its loss, its validation, its words for a bad batch."""

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batch import PairBatch
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TRAIN
from recsys.layers.geometry import directions_of
from recsys.layers.smoothing import ItemSmoothing
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Trained
from recsys.training.engine.loop import Task
from recsys.training.engine.optim import build_optimizer
from recsys.training.engine.parts import BatchInWords, on_device, table_of
from recsys.training.engine.ranks import ALONE, World
from recsys.training.evaluation.collapse import representation_metrics
from recsys.training.evaluation.evaluate import ranking_metrics, vector_ranker
from recsys.training.families.two_tower.objective import RetrievalObjective

CONTEXT_DROPOUT = 0.1
"""Share of training requests without context, so that batch scoring has a trained answer."""


def build_two_tower(config: ExperimentConfig, data: Dataset, world: World) -> TwoTower:
    """Return the model with seeded initial weights, its table sharded over the ranks."""
    if config.two_tower.smoothing.rounds and world.size > 1:
        raise ConfigError(
            f"model.smoothing needs the whole catalogue at every step, and {world.size} "
            "processes hold a share each: train in one process, or set its rounds to 0"
        )
    layouts = (data.encoder.layout("items"), data.encoder.query_layout())
    plan = EmbeddingPlan.of(config.embedding, layouts)
    table = table_of(config, plan, world)
    torch.manual_seed(config.training.seed)
    model = TwoTower(config.two_tower, UnifiedEmbedding(plan, table))
    model.smoothing = smoothing_of(config, data)
    return model.to(world.device)


def smoothing_of(config: ExperimentConfig, data: Dataset) -> ItemSmoothing | None:
    """Return what smooths item vectors over the training rows; None: nothing does."""
    smoothing = config.two_tower.smoothing
    if not smoothing.rounds:
        return None
    rows = data.events_of((TRAIN,))
    events = data.tables.events
    absent = data.encoder.encode("interactions", pa.table({"none": pa.nulls(1)}))
    no_context = absent.take(torch.zeros(data.num_users, dtype=torch.int64))
    return ItemSmoothing(
        events.user_row[rows],
        events.item_row[rows],
        data.users.beside(no_context),
        data.num_items,
        rounds=smoothing.rounds,
        weight=smoothing.weight,
    )


def two_tower_task(
    config: ExperimentConfig, data: Dataset, validation: Queries, world: World
) -> Task[PairBatch]:
    """Return everything that the loop needs to train a two-tower on `data`."""
    training = config.training
    device = world.device
    model = build_two_tower(config, data, world)
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    loader = PairLoader(
        data,
        LoaderConfig(
            batch_size=training.batch_size,
            uniform_negatives=training.uniform_negatives,
            history_length=config.retrieval.history_length,
            id_dropout=training.id_dropout,
            context_dropout=CONTEXT_DROPOUT,
            seed=training.seed,
            examples=training.examples,
            positives=training.positives,
            cut_history=training.cut_history,
            whole_catalogue=config.every_item_each_step,
            mask_taken=training.mask_taken,
            trained_only=training.negative_items == "trained",
        ),
    )

    objective = RetrievalObjective(model, data, training, world, device)
    return Task(
        trained=Trained(model, model.embedding.table, optimizer, objective.head),
        num_steps=loader.num_steps,
        batches=lambda epoch, first: on_device(
            loader.epoch(epoch, first, rank=world.rank, world=world.size), device
        ),
        loss=objective,
        validate=Validation(model, data, validation, config, world),
        describe=BatchInWords[PairBatch](
            model.embedding,
            data.tables.events.row,
            lambda batch: (batch.items, batch.query),
        ),
    )


@dataclass(frozen=True)
class Validation:
    """Full-ranking metrics on the validation queries, which the ranks share."""

    model: RetrievalModel
    data: Dataset
    queries: Queries
    config: ExperimentConfig
    world: World

    def __call__(self) -> dict[str, float]:
        """Return the metrics of the model as it stands; none without queries."""
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
