"""The task of a model of sessions: its batches, its loss, its validation."""

import torch

from recsys.data.batch import SessionBatch
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.batches.sessions import SessionLoader, SessionLoaderConfig
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.sessions import Sessions
from recsys.models.session import SessionTransformer
from recsys.training.engine.checkpoint import Trained
from recsys.training.engine.loop import Task
from recsys.training.engine.optim import build_optimizer
from recsys.training.engine.parts import BatchInWords, on_device, table_of
from recsys.training.engine.ranks import World
from recsys.training.families.retrieval.validation import Validation
from recsys.training.families.session.config import Gbce, SessionExperiment
from recsys.training.families.session.objective import SessionObjective


def build_session_model(
    config: SessionExperiment, data: Dataset, world: World
) -> SessionTransformer:
    """Return the model with seeded initial weights, its table sharded over the ranks."""
    plan = EmbeddingPlan.of(config.embedding, data.encoder.retrieval_layouts(of_steps=True))
    table = table_of(config, plan, world)
    torch.manual_seed(config.training.seed)
    return SessionTransformer(config.model, UnifiedEmbedding(plan, table)).to(world.device)


def session_task(
    config: SessionExperiment,
    data: Dataset,
    sessions: Sessions,
    validation: Queries,
    world: World,
) -> Task[SessionBatch]:
    """Return everything that the loop needs to train a model of sessions on `data`."""
    training, device = config.training, world.device
    model = build_session_model(config, data, world)
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    objective = SessionObjective(model, data, training, world, device)
    if objective.head is not None:
        heads = [one for one in objective.head.parameters() if one.requires_grad]
        optimizer.add_param_group({"params": heads, "weight_decay": 0.0})
    loader = SessionLoader(data, sessions, loader_config(config))
    return Task(
        trained=Trained(model, model.embedding.table, optimizer, objective.head),
        num_steps=loader.num_steps,
        batches=lambda epoch, first: on_device(
            loader.epoch(epoch, first, rank=world.rank, world=world.size), device
        ),
        loss=objective,
        validate=Validation(model, data, validation, config, world),
        describe=BatchInWords[SessionBatch](
            model.embedding,
            data.tables.events.row,
            lambda batch: (batch.items, batch.users, batch.history.features),
        ),
        parts=objective.parts,
    )


def loader_config(config: SessionExperiment) -> SessionLoaderConfig:
    """Return what a batch is made of."""
    training, session = config.training, config.training.session
    return SessionLoaderConfig(
        batch_size=training.batch_size,
        max_length=config.model.history_length,
        windows=session.windows,
        positions=session.positions,
        whole_catalogue=training.loss.whole_catalogue,
        uniform_negatives=training.uniform_negatives,
        frequent_negatives=session.frequent_negatives,
        batch_negatives=session.batch_negatives and not isinstance(training.loss, Gbce),
        id_dropout=training.id_dropout,
        event_dropout=session.event_dropout,
        step_dropout=session.step_dropout,
        trained_only=training.negative_items == "trained",
        seed=training.seed,
        targets=training.towards == "targets",
    )
