"""One embedding under one perceptron, trained as rankers are, at its best epoch."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from embedding_methods.alternatives import build_embedding, collisionless_parameters
from embedding_methods.datasets import Rows, study_data
from torch import Tensor
from torch.nn import functional as F

from recsys.embeddings.table import TableConfig
from recsys.metrics.classification import auc, log_loss
from recsys.models.deep import Deep, DeepConfig
from recsys.training.engine.averaging import WeightAverage
from recsys.training.engine.optim import build_optimizer

DIM = 16
BATCH_SIZE = 4096
DENSE_RATE, DENSE_DECAY, INIT_SCALE = 0.002, 0.01, 0.01
EVALUATED = 16_384
CPU = torch.device("cpu")
Figures = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One point of the grid: an embedding, trained once.

    num_rows: drawn, where rows are drawn. percent: of a collision-free table's floats.
    weight_decay: None: the data set's. max_steps: of an epoch.
    """

    data: str
    num_rows: int
    method: str
    percent: float
    seed: int
    hidden: tuple[int, ...]
    epochs: int
    patience: int
    max_steps: int
    weight_decay: float | None = None
    learning_rate: float = 0.001
    init_scale: float = INIT_SCALE
    dim: int = DIM


def _batches(rows: Rows, order: Tensor, size: int) -> Iterator[Rows]:
    return (rows.take(part) for part in order.split(size))


@torch.no_grad()
def evaluate(model: Deep, rows: Rows) -> dict[str, float]:
    """Return AUC and log loss."""
    model.eval()
    order = torch.arange(len(rows))
    logits = torch.cat([model(batch.features) for batch in _batches(rows, order, EVALUATED)])
    model.train()
    label, ones = rows.label.numpy(), np.ones(len(rows), np.float32)
    probability = logits.double().sigmoid().numpy()
    return {
        "auc": auc(logits.numpy(), label, ones),
        "log_loss": log_loss(probability, label, ones),
    }


def train(run: Run) -> Figures:
    """Train one model; return the figures of its best epoch on the validation rows."""
    started = time.process_time()
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    data = study_data(run.data, run.num_rows)
    values, rows = data.training_values(), data.parts["train"]
    decay = data.weight_decay if run.weight_decay is None else run.weight_decay
    table = TableConfig(
        dim=run.dim,
        optimizer="adam",
        learning_rate=run.learning_rate,
        weight_decay=decay,
        init_scale=run.init_scale,
    )
    embedding = build_embedding(
        run.method,
        [data.layout],
        table,
        parameters=int(collisionless_parameters(values, DIM) * run.percent / 100),
        values=values,
        device=CPU,
        seed=run.seed,
    )
    model = Deep(DeepConfig(hidden=run.hidden), embedding, embedding.width(0))
    optimizer = build_optimizer(model, learning_rate=DENSE_RATE, weight_decay=DENSE_DECAY)
    steps = min(-(-len(rows) // BATCH_SIZE), run.max_steps)
    average = WeightAverage(model, embedding.table, 1, steps)
    history: list[float] = []
    best: dict[str, float] = {}
    test: dict[str, float] = {}
    for epoch in range(run.epochs):
        generator = torch.Generator().manual_seed(run.seed * 997 + epoch)
        order = torch.randperm(len(rows), generator=generator)[: steps * BATCH_SIZE]
        for step, batch in enumerate(_batches(rows, order, BATCH_SIZE), 1):
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(model(batch.features), batch.label).backward()
            optimizer.step()
            if (epoch * steps + step) % average.every == 0:
                average.update(model, embedding.table)
        with average.shown(model, embedding.table):
            found = evaluate(model, data.parts["validation"])
            if not best or found["auc"] > best["auc"]:
                best = {**found, "epoch": epoch + 1}
                test = evaluate(model, data.parts["test"])
        history.append(round(found["auc"], 5))
        if epoch + 1 - best["epoch"] >= run.patience:
            break
    numbered = embedding.numbered_values
    return {
        **asdict(run),
        "parameters": embedding.num_parameters,
        "kib": round((4 * embedding.num_parameters + 8 * numbered) / 1024, 1),
        "width": embedding.width(0),
        "best_epoch": best["epoch"],
        "validation_auc": best["auc"],
        "validation_by_epoch": history,
        "test_auc": test["auc"],
        "test_log_loss": test["log_loss"],
        "cpu_s": round(time.process_time() - started, 1),
    }
