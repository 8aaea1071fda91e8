"""The ranking task: binary cross-entropy on labelled rows, evaluated by AUC and log loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.bundle.calibration import Calibrator
from recsys.data.batch import RankingBatch
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Table
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.dataset.split import VALIDATION
from recsys.layers.norm import rows_weigh
from recsys.losses.ranking import binary_cross_entropy
from recsys.metrics.classification import auc, log_loss
from recsys.models.rankers import build_ranker as built
from recsys.training.engine.checkpoint import Trained
from recsys.training.engine.loop import Task
from recsys.training.engine.machine import autocast
from recsys.training.engine.optim import build_optimizer
from recsys.training.engine.parts import on_device, table_of, whats_not_finite
from recsys.training.engine.ranks import World
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.self_supervision import self_supervised

_BASE_RATE_BATCHES = 16


def build_ranker(config: RankerExperiment, rows: RankingRows, world: World) -> nn.Module:
    """Return the model with seeded initial weights, its table sharded over the ranks."""
    plan = EmbeddingPlan.of(config.embedding, (rows.layout,))
    table = table_of(config, plan, world)
    torch.manual_seed(config.training.seed)
    model = built(config.model, UnifiedEmbedding(plan, table)).to(world.device)
    _start_at_base_rate(config, rows, model, world)
    return model


@torch.no_grad()
def _start_at_base_rate(
    config: RankerExperiment, rows: RankingRows, model: nn.Module, world: World
) -> None:
    """Let the first logits be about those of the share of positives in the first batches.

    Otherwise a model of a log with few steps ends before it has learnt even that.
    """
    positive = total = 0.0
    for batch in islice(
        rows.loader.epoch(0, rank=world.rank, world=world.size), _BASE_RATE_BATCHES
    ):
        weight_B = torch.where(batch.label > 0, config.training.positive_weight, 1.0)
        weight_B = weight_B * batch.weight
        positive += float((weight_B * batch.label).sum())
        total += float(weight_B.sum())
    positive, total = world.sum(positive, total)
    share = (positive + 0.5) / (total + 1)  # never 0 or 1
    bias: Any = model.output_bias
    bias.fill_(log(share / (1 - share)))


def table_in(model: nn.Module) -> Table:
    """Return the table that `model` reads."""
    embedding = model.embedding
    assert isinstance(embedding, UnifiedEmbedding)
    return embedding.table


def ranking_task(config: RankerExperiment, rows: RankingRows, world: World) -> Task[RankingBatch]:
    """Return everything that the loop needs to train a ranker on `rows`."""
    training = config.training
    model = build_ranker(config, rows, world)
    table = table_in(model)
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )

    def loss(batch: RankingBatch) -> Tensor:
        # A log without weights has 1 for all: its statistics need none.
        weighs = None if bool((batch.weight == 1).all()) else batch.weight
        with autocast(training.precision, world.device), rows_weigh(weighs):
            logits_B = model(batch.features)
        weight_B = torch.where(batch.label > 0, training.positive_weight, 1.0) * batch.weight
        losses_B = weight_B * binary_cross_entropy(
            logits_B, batch.label, label_smoothing=training.label_smoothing
        )
        (total,) = world.sum(float(weight_B.sum()))
        return losses_B.sum() / max(total, 1e-12)

    def validate() -> dict[str, float]:
        found = predictions(model, rows, VALIDATION, training.batch_size, world)
        return {
            "auc": auc(found.logit, found.label, found.weight),
            "log_loss": log_loss(found.probability, found.label, found.weight),
        }

    task = Task(
        trained=Trained(model, table, optimizer),
        num_steps=rows.loader.num_steps,
        batches=lambda epoch, first: on_device(
            rows.loader.epoch(epoch, first, rank=world.rank, world=world.size), world.device
        ),
        loss=loss,
        validate=validate,
        describe=_description(model, rows),
    )
    return self_supervised(task, config, rows, world)


@dataclass(frozen=True)
class Predictions:
    """What a ranker said of the rows of a part, and what came of them; (N,) each.

    logit: as the model gives it. offset: what undoes the sampling of the training rows.
    """

    logit: NDArray[np.float32]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    offset: float = 0.0

    @property
    def probability(self) -> NDArray[np.float64]:
        """The predicted probability of label 1, (N,)."""
        return Calibrator(offset=self.offset).probability(self.logit)


@torch.no_grad()
def predictions(
    model: nn.Module, rows: RankingRows, part: int, batch_size: int, world: World
) -> Predictions:
    """Return the predictions for all rows of `part` on every rank; the ranks share the work.

    The order of the rows depends on the number of ranks.
    """
    was_training = model.training
    model.eval()
    # Filled in place: small results kept between the large blocks of a step would hold on to
    # the memory around them, gigabytes on millions of rows.
    columns = [torch.empty(rows.rows[part]) for _ in range(3)]
    done = 0
    batches: Iterator[RankingBatch] = rows.loader.ordered(
        part, batch_size, rank=world.rank, world=world.size
    )
    for batch in on_device(batches, world.device):
        here = slice(done, done + len(batch))
        for column, found in zip(
            columns,
            (model(batch.features), batch.label, batch.weight),
            strict=True,
        ):
            column[here] = found
        done = here.stop
    model.train(was_training)
    logit, label, weight = (world.collect(column[:done]).numpy() for column in columns)
    return Predictions(logit, label, weight, rows.logit_offset)


def _description(model: nn.Module, rows: RankingRows) -> Callable[[RankingBatch], str]:
    def describe(batch: RankingBatch) -> str:
        first = ", ".join(str(int(row) + 1) for row in batch.examples[:5])
        inputs = (batch.features, rows.layout)
        return f"its first rows are {first}; {whats_not_finite(table_in(model), inputs)}"

    return describe
