"""The ranking task: binary cross-entropy on labelled rows, evaluated by AUC and log loss.

Of several outcomes the loss is that of the label plus, by their weights, those of the others, each
the mean over the rows in which it is known. Shape letters: B rows, T outcomes, the label first.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
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
from recsys.training.families.ranker.enough import not_computed
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.self_supervision import self_supervised

_BASE_RATE_BATCHES = 16


def build_ranker(config: RankerExperiment, rows: RankingRows, world: World) -> nn.Module:
    """Return the model with seeded initial weights, its table sharded over the ranks."""
    plan = EmbeddingPlan.of(config.embedding, (rows.layout,))
    table = table_of(config, plan, world)
    torch.manual_seed(config.training.seed)
    embedding = UnifiedEmbedding(plan, table)
    model = built(config.model, embedding, 1 + len(config.outcomes)).to(world.device)
    _start_at_base_rate(config, rows, model, world)
    return model


@torch.no_grad()
def _start_at_base_rate(
    config: RankerExperiment, rows: RankingRows, model: nn.Module, world: World
) -> None:
    """Let the first logits be about those of the share of positives in the first batches.

    Otherwise a model of a log with few steps ends before it has learnt even that.
    """
    positive_T = total_T = torch.zeros(1 + len(config.outcomes), dtype=torch.float64)
    for batch in islice(
        rows.loader.epoch(0, rank=world.rank, world=world.size), _BASE_RATE_BATCHES
    ):
        label_BT, weight_BT = _counted(config, batch)
        positive_T = positive_T + (weight_BT * label_BT).sum(0)
        total_T = total_T + weight_BT.sum(0)
    sums = world.sum(*positive_T.tolist(), *total_T.tolist())
    positive_T, total_T = torch.tensor(sums, dtype=torch.float64).chunk(2)
    share_T = (positive_T + 0.5) / (total_T + 1)  # never 0 or 1
    bias: Any = model.output_bias
    bias.copy_(share_T.logit())


def _counted(config: RankerExperiment, batch: RankingBatch) -> tuple[Tensor, Tensor]:
    """Return the outcomes that the model predicts and how much each counts, (B, T) each.

    One that is not known is 0 and counts 0.
    """
    label_BT = batch.targets[:, : 1 + len(config.outcomes)]
    weight_BT = batch.weight.unsqueeze(1) * ~label_BT.isnan()
    factor_B = torch.where(batch.label > 0, config.training.positive_weight, 1.0)
    weight_BT[:, 0] *= factor_B
    return label_BT.nan_to_num(0.0), weight_BT


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
            logits = model(batch.features)
        label_BT, weight_BT = _counted(config, batch)
        logits_BT = logits.view_as(label_BT)
        smoothing = (training.label_smoothing, *(0.0 for _ in config.outcomes))
        losses = [
            binary_cross_entropy(logits_B, label_B, label_smoothing=softer) @ weight_B
            for logits_B, label_B, weight_B, softer in zip(
                logits_BT.T, label_BT.T, weight_BT.T, smoothing, strict=True
            )
        ]
        totals = world.sum(*weight_BT.sum(0).tolist())
        scales = (1.0, *(outcome.weight for outcome in config.outcomes))
        each = zip(losses, scales, totals, strict=True)
        return torch.stack([scale * one / max(total, 1e-12) for one, scale, total in each]).sum()

    def validate() -> dict[str, float]:
        if config.split.trains_on_validation:
            return {}
        metrics = measured(predictions(model, rows, VALIDATION, training.batch_size, world))
        if training.metric not in metrics:
            raise not_computed(training.metric)
        return metrics

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

    logit: as the model gives it. offset: what undoes the sampling of the training rows. outcomes:
    by name, the same of further outcomes, of the rows in which each is known.
    """

    logit: NDArray[np.float32]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    offset: float = 0.0
    outcomes: Mapping[str, "Predictions"] = field(default_factory=dict)

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
    output_bias: Any = model.output_bias
    count, outcomes = rows.rows[part], len(output_bias)
    columns = [torch.empty(count, outcomes), torch.empty(count, outcomes), torch.empty(count)]
    done = 0
    batches: Iterator[RankingBatch] = rows.loader.ordered(
        part, batch_size, rank=world.rank, world=world.size
    )
    for batch in on_device(batches, world.device):
        here = slice(done, done + len(batch))
        label_BT = batch.targets[:, :outcomes]
        found = (model(batch.features).view_as(label_BT), label_BT, batch.weight)
        for column, values in zip(columns, found, strict=True):
            column[here] = values
        done = here.stop
    model.train(was_training)
    logit, label, weight = (world.collect(column[:done]).numpy() for column in columns)
    others = {}
    for place, name in enumerate(rows.schema.interactions.outcome_names[: outcomes - 1], 1):
        known = ~np.isnan(label[:, place])
        others[name] = Predictions(logit[known, place], label[known, place], weight[known])
    return Predictions(logit[:, 0], label[:, 0], weight, rows.logit_offset, others)


def measured(found: Predictions) -> dict[str, float]:
    """Return AUC and log loss, of further outcomes as `auc_<name>` and `log_loss_<name>`.

    An outcome that is known of no row, or that is always the same, has none, or no AUC.
    """
    metrics = {
        "auc": auc(found.logit, found.label, found.weight),
        "log_loss": log_loss(found.probability, found.label, found.weight),
    }
    for name, one in found.outcomes.items():
        if one.weight.sum() > 0:
            own = {f"{metric}_{name}": value for metric, value in measured(one).items()}
            metrics |= {metric: value for metric, value in own.items() if not np.isnan(value)}
    return metrics


def _description(model: nn.Module, rows: RankingRows) -> Callable[[RankingBatch], str]:
    def describe(batch: RankingBatch) -> str:
        first = ", ".join(str(int(row) + 1) for row in batch.examples[:5])
        inputs = (batch.features, rows.layout)
        return f"its first rows are {first}; {whats_not_finite(table_in(model), inputs)}"

    return describe
