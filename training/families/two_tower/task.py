"""The task of a two-tower: its batches, its loss, its validation."""

import pyarrow as pa
import torch

from recsys.core.errors import ConfigError
from recsys.data.batch import PairBatch
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TRAIN
from recsys.layers.smoothing import ItemSmoothing
from recsys.models.two_tower import TwoTower
from recsys.training.engine.checkpoint import Trained
from recsys.training.engine.loop import Task
from recsys.training.engine.optim import build_optimizer
from recsys.training.engine.parts import BatchInWords, on_device, table_of
from recsys.training.engine.ranks import World
from recsys.training.families.retrieval.validation import Validation
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.families.two_tower.objective import RetrievalObjective

CONTEXT_DROPOUT = 0.1
"""Share of training requests without context, so that batch scoring has a trained answer."""


def build_two_tower(config: TwoTowerExperiment, data: Dataset, world: World) -> TwoTower:
    """Return the model with seeded initial weights, its table sharded over the ranks."""
    if config.model.smoothing.rounds and world.size > 1:
        raise ConfigError(
            f"model.smoothing needs the whole catalogue at every step, and {world.size} "
            "processes hold a share each: train in one process, or set its rounds to 0"
        )
    layouts = (data.encoder.layout("items"), data.encoder.query_layout())
    plan = EmbeddingPlan.of(config.embedding, layouts)
    table = table_of(config, plan, world)
    torch.manual_seed(config.training.seed)
    model = TwoTower(config.model, UnifiedEmbedding(plan, table))
    model.smoothing = smoothing_of(config, data)
    return model.to(world.device)


def smoothing_of(config: TwoTowerExperiment, data: Dataset) -> ItemSmoothing | None:
    """Return what smooths item vectors over the training rows; None: nothing does."""
    smoothing = config.model.smoothing
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
    config: TwoTowerExperiment, data: Dataset, validation: Queries, world: World
) -> Task[PairBatch]:
    """Return everything that the loop needs to train a two-tower on `data`.

    Raises:
        ConfigError: several ranks cannot train it as one would.
    """
    training = config.training
    device = world.device
    if world.size > 1 and config.model.norm == "batch":
        raise ConfigError(
            "model.norm: batch takes its statistics from all items of a step, and the processes of "
            "a two-tower encode some of them twice: set layer or none, or train in one process"
        )
    model = build_two_tower(config, data, world)
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    loader = PairLoader(
        data,
        LoaderConfig(
            batch_size=training.batch_size,
            uniform_negatives=training.uniform_negatives,
            history_length=config.model.history_length,
            id_dropout=training.id_dropout,
            context_dropout=CONTEXT_DROPOUT,
            seed=training.seed,
            examples=training.examples,
            positives=training.positives,
            cut_history=training.cut_history,
            whole_catalogue=config.every_item_each_step,
            mask_taken=training.mask_taken,
            trained_only=training.negative_items == "trained",
            targets=training.towards == "targets",
            history_gap_seconds=60 * training.history_gap_minutes,
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
