"""The optimizers of a table: the fused step beside torch's operators, and both beside oracles."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from recsys.embeddings.row_step import can_step
from recsys.embeddings.table import Optimizer, TableConfig
from recsys.embeddings.torch_table import TorchTable

CPU, ROWS, DIM = torch.device("cpu"), 40, 5
OPTIMIZERS: tuple[Optimizer, ...] = (
    "sgd",
    "adagrad",
    "row_wise_adagrad",
    "adam",
    "row_wise_adam",
)


def table_of(*, native: bool = True, **settings: Any) -> TorchTable:
    asked = {"num_rows": ROWS, "dim": DIM, "learning_rate": 0.1, "backend": "torch", **settings}
    table = TorchTable(TableConfig.model_validate(asked), CPU)
    table.weight.copy_(torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3)))
    if native and not can_step(table.config, CPU):
        pytest.skip("no C++ compiler")
    if not native:
        table.__dict__["_row_step"] = None
    return table


def bags(seed: int, *, several: bool, weighted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0 if several else 1, 4 if several else 2, (30,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    rows = torch.randint(0, ROWS // 2, (int(offsets[-1]),), generator=generator)
    weights = torch.rand(len(rows), generator=generator) if weighted else None
    return rows, offsets, weights


@pytest.mark.parametrize("decay", [0.0, 0.01, "0.01 at reads"])
@pytest.mark.parametrize(("several", "weighted"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_fused_step_is_that_of_the_operators(
    optimizer: Optimizer, several: bool, weighted: bool, decay: float | str
) -> None:
    settings: dict[str, Any] = {"optimizer": optimizer, "weight_decay": decay}
    if isinstance(decay, str):
        settings |= {"weight_decay": 0.01, "weight_decay_at": "reads"}
    fused, plain = table_of(**settings), table_of(native=False, **settings)
    for step in range(5):
        read = bags(step, several=several, weighted=weighted)
        grad = torch.randn(30, DIM, generator=torch.Generator().manual_seed(step))
        for table in (fused, plain):
            table.scale_learning_rate(0.5 if step == 3 else 1.0)
            table(*read).backward(grad)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(fused.weight, plain.weight, rtol=1e-5, atol=1e-6)
        for name, state in plain.state.items():
            torch.testing.assert_close(fused.state[name], state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("optimizer", "decay"), [("adam", 0.0), ("adam", 0.1), ("sgd", 0.1)])
def test_a_table_that_is_read_whole_steps_as_a_dense_optimizer(
    optimizer: Optimizer, decay: float, native: bool
) -> None:
    table = table_of(native=native, optimizer=optimizer, weight_decay=decay)
    dense = table.weight.clone().requires_grad_()
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    other = kinds[optimizer]([dense], lr=0.1, weight_decay=decay)
    rows, offsets = torch.arange(ROWS), torch.arange(ROWS + 1)
    for step in range(6):
        grad = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(step))
        table(rows, offsets).backward(grad)  # type: ignore[no-untyped-call]
        dense.grad = grad.clone()
        other.step()
        torch.testing.assert_close(table.weight, dense.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("native", [True, False])
def test_decay_catches_up_when_a_row_is_read_again(native: bool) -> None:
    """Row 0 is read in steps 1 and 4, row 1 in all: by SGD, w -= 0.1 (g + 0.2 w steps)."""
    table = table_of(native=native, optimizer="sgd", weight_decay=0.2)
    table.weight.fill_(1.0)
    for rows in ([0, 1], [1], [1], [0, 1]):
        read, offsets = torch.tensor(rows), torch.arange(len(rows) + 1)
        table(read, offsets).backward(torch.zeros(len(rows), DIM))  # type: ignore[no-untyped-call]
    first = (1 - 0.1 * 0.2) * (1 - 0.1 * 0.2 * 3)
    torch.testing.assert_close(table.weight[0], torch.full((DIM,), first))
    torch.testing.assert_close(table.weight[1], torch.full((DIM,), (1 - 0.1 * 0.2) ** 4))
    assert torch.equal(table.weight[2], torch.ones(DIM))  # never read
    assert table.state["last"][:3].tolist() == [4, 4, 0]
    assert float(table.state["step"]) == 4


@pytest.mark.parametrize("native", [True, False])
def test_decay_at_reads_is_that_of_one_step(native: bool) -> None:
    """As above: two reads take w (1 - 0.1 x 0.2) twice, however many steps were between."""
    table = table_of(native=native, optimizer="sgd", weight_decay=0.2, weight_decay_at="reads")
    table.weight.fill_(1.0)
    for rows in ([0, 1], [1], [1], [0, 1]):
        read, offsets = torch.tensor(rows), torch.arange(len(rows) + 1)
        table(read, offsets).backward(torch.zeros(len(rows), DIM))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(table.weight[0], torch.full((DIM,), (1 - 0.1 * 0.2) ** 2))
    torch.testing.assert_close(table.weight[1], torch.full((DIM,), (1 - 0.1 * 0.2) ** 4))
    assert torch.equal(table.weight[2], torch.ones(DIM))  # never read
    assert not table.state


def test_when_a_table_decays_is_asked_only_of_one_that_does() -> None:
    with pytest.raises(ValidationError, match="weight_decay is 0: set"):
        TableConfig(weight_decay_at="reads")


def test_a_step_that_reads_nothing_moves_the_clock_alone() -> None:
    table = table_of(optimizer="adam", weight_decay=0.1)
    before = table.weight.clone()
    none = torch.zeros(0, dtype=torch.int64)
    table.update(none, torch.zeros(1, dtype=torch.int64), None, torch.zeros(0, DIM))
    assert float(table.state["step"]) == 1
    assert torch.equal(table.weight, before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_memory_that_is_foretold_is_that_of_the_state(
    optimizer: Optimizer, decay: float
) -> None:
    table = table_of(native=False, optimizer=optimizer, weight_decay=decay)
    tensors = [table.weight, *(v for name, v in table.state.items() if name != "step")]
    assert table.config.memory_bytes == sum(tensor.numel() for tensor in tensors) * 4


def test_adam_steps_by_its_own_rate_unless_told() -> None:
    assert TableConfig().learning_rate == 0.05
    assert TableConfig(optimizer="adam").learning_rate == 0.001
    assert TableConfig(optimizer="row_wise_adam", learning_rate=0.5).learning_rate == 0.5
