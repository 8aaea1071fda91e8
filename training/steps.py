"""The two-tower task: its loss, its validation, its words for a bad batch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from features.dataset import Dataset
from features.loader import LoaderConfig, PairLoader
from features.queries import Queries
from recsys.batch import FeatureLayout, PairBatch
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import build_table
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.losses.retrieval import correct_log_odds, softmax_loss
from recsys.models.two_tower import TwoTower, catalogue_vectors, query_vectors
from recsys.retrieval.topk import exact_topk
from training.checkpoint import Trained
from training.config import ExperimentConfig
from training.evaluate import ranking_metrics
from training.loop import Task
from training.machine import autocast, pick_device
from training.optim import build_optimizer

CONTEXT_DROPOUT = 0.1
"""Share of training requests without context, so that batch scoring has a trained answer."""


def build_two_tower(config: ExperimentConfig, data: Dataset, device: torch.device) -> TwoTower:
    """Return the model with seeded initial weights."""
    layouts = (data.encoder.layout("items"), data.encoder.query_layout())
    plan = EmbeddingPlan.of(config.embedding, layouts)
    table = build_table(config.embedding, device=device, seed=config.training.seed)
    torch.manual_seed(config.training.seed)
    return TwoTower(config.model, UnifiedEmbedding(plan, table)).to(device)


def two_tower_loss(model: TwoTower, batch: PairBatch, *, logq_correction: bool) -> Tensor:
    """Return the sampled-softmax loss of a batch, a scalar in nats."""
    query_BE, candidate_CE = model(batch)
    logits_BC = query_BE @ candidate_CE.T / model.temperature
    if logq_correction:
        logits_BC = correct_log_odds(logits_BC, batch.log_inclusion, batch.positive)
    return softmax_loss(logits_BC, batch.positive, batch.weight)


def two_tower_task(config: ExperimentConfig, data: Dataset, validation: Queries) -> Task[PairBatch]:
    """Return everything that the loop needs to train a two-tower on `data`."""
    training = config.training
    device = pick_device(training.device)
    model = build_two_tower(config, data, device)
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
        ),
    )

    def loss(batch: PairBatch) -> Tensor:
        with autocast(training.precision, device):
            return two_tower_loss(model, batch, logq_correction=training.logq_correction)

    return Task(
        trained=Trained(model, model.embedding.table, optimizer),
        num_steps=loader.num_steps,
        batches=_on_device(loader.epoch, device),
        loss=loss,
        validate=_Validation(model, data, validation, config, device),
        describe=_Description(model, data),
    )


def _on_device(
    epoch: Callable[[int, int], Iterator[PairBatch]], device: torch.device
) -> Callable[[int, int], Iterator[PairBatch]]:
    if device.type == "cpu":
        return epoch
    return lambda number, first: (batch.to(device) for batch in epoch(number, first))


@dataclass(frozen=True)
class _Validation:
    """Full-ranking metrics on the validation queries."""

    model: TwoTower
    data: Dataset
    queries: Queries
    config: ExperimentConfig
    device: torch.device

    def __call__(self) -> dict[str, float]:
        evaluation = self.config.evaluation
        top = rank_with(
            self.model, self.data, self.queries, max(evaluation.ks), evaluation.filter_seen
        )
        per_query = ranking_metrics(top, self.queries.relevant, evaluation.ks)
        return {name: float(values.mean()) for name, values in per_query.items()}


def rank_with(
    model: TwoTower, data: Dataset, queries: Queries, k: int, filter_seen: bool
) -> Tensor:
    """Return the model's top k item rows of each query, (Q, k) int64, -1 where short."""
    device = next(model.parameters()).device
    items = catalogue_vectors(model, data.items.to(device))
    vectors = query_vectors(model, queries.block.to(device), items, queries.history.to(device))
    exclude = queries.seen if filter_seen else None
    return exact_topk(vectors.cpu(), items.cpu(), k, exclude)[1]


@dataclass(frozen=True)
class _Description:
    """Names what is not finite in a batch, else its first rows."""

    model: TwoTower
    data: Dataset

    def __call__(self, batch: PairBatch) -> str:
        rows = self.data.tables.events.row[batch.examples[:5].cpu().numpy()]
        text = f"its first interactions are rows {', '.join(str(row + 1) for row in rows)}"
        layouts = self.model.embedding.plan.layouts
        for block, layout in ((batch.items, layouts[0]), (batch.query, layouts[1])):
            names = _not_finite(block.dense, layout)
            if names:
                return f"{text}; not finite in the data: {', '.join(names)}"
        if not bool(torch.isfinite(self.model.embedding.table.weight).all()):
            return f"{text}; the embedding table holds values that are not finite"
        return f"{text}; all inputs are finite"


def _not_finite(dense: Tensor, layout: FeatureLayout) -> list[str]:
    bad = (~torch.isfinite(dense)).any(0).nonzero().flatten().tolist()
    return [layout.dense[column] for column in bad]
