"""Learning rates over a training: the schedules by hand, and that both optimizers follow them."""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys.embeddings.backend import build_table
from recsys.embeddings.table import Table, TableConfig
from recsys.training.config.sections import TrainingConfig
from recsys.training.engine.checkpoint import Checkpoints, Trained
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.optim import build_optimizer, decay

CPU = torch.device("cpu")


def test_schedules_by_hand() -> None:
    assert [decay("constant", step, 4) for step in range(4)] == [1, 1, 1, 1]
    assert [decay("linear", step, 4) for step in range(4)] == [1, 3 / 4, 1 / 2, 1 / 4]
    half = math.sqrt(0.5)
    expected = [1, (1 + half) / 2, 1 / 2, (1 - half) / 2]
    assert [decay("cosine", step, 4) for step in range(4)] == pytest.approx(expected)


def stepped(table: Table) -> Tensor:
    """Return the weights after two steps on the same rows."""
    rows = torch.tensor([1, 3, 3, 0])
    for _ in range(2):
        pooled = table(rows, torch.tensor([0, 1, 2, 4]))
        (pooled * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
    return table.weight.clone()


@pytest.mark.parametrize("backend", ["torch", "fbgemm"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "row_wise_adagrad", "row_wise_adam"])
def test_a_scaled_table_steps_as_one_configured_so(optimizer: str, backend: str) -> None:
    if backend == "fbgemm" and optimizer == "row_wise_adam":
        return  # it has no such optimizer

    def table(learning_rate: float) -> Table:
        config = TableConfig.model_validate(
            {
                "num_rows": 5,
                "dim": 4,
                "optimizer": optimizer,
                "backend": backend,
                "learning_rate": learning_rate,
            }
        )
        return build_table(config, device=CPU, seed=0)

    scaled = table(0.4)
    scaled.scale_learning_rate(0.25)
    torch.testing.assert_close(stepped(scaled), stepped(table(0.1)))
    assert not torch.allclose(stepped(table(0.4)), stepped(table(0.1)))


class One:
    def __len__(self) -> int:
        return 1


def test_both_optimizers_follow_the_schedule(tmp_path: Path) -> None:
    """With a gradient of 1 a step of SGD is the rate itself; AdamW's rate is read off its group."""
    config = TableConfig(num_rows=1, dim=4, optimizer="sgd", learning_rate=0.5, backend="torch")
    table = build_table(config, device=CPU, seed=0)
    model = nn.Linear(1, 1)
    optimizer = build_optimizer(model, learning_rate=0.1, weight_decay=0.0)
    before, seen = [], []

    def batches(epoch: int, first: int) -> Iterator[One]:
        for _ in range(first, 5):
            yield One()

    def loss(batch: One) -> Tensor:
        before.append(float(table.weight[0, 0]))
        seen.append(optimizer.param_groups[0]["lr"])
        return table(torch.tensor([0]), torch.tensor([0, 1])).sum() + model.bias.sum()

    task = Task(
        trained=Trained(model, table, optimizer),
        num_steps=5,
        batches=batches,
        loss=loss,
        validate=lambda: {"auc": float(len(before))},
        describe=lambda batch: "",
    )
    settings = TrainingConfig(
        metric="auc", epochs=2, schedule="linear", learning_rate=0.1, warmup_steps=1
    )
    fit(task, settings, Checkpoints(tmp_path))
    factors = [1 - step / 10 for step in range(10)]
    assert seen == pytest.approx([0.1 * factor for factor in factors])
    steps = [a - b for a, b in pairwise(before)]
    assert steps == pytest.approx([0.5 * factor for factor in factors[:9]], rel=1e-4)
