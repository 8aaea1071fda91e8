"""Which kernel runs the table: by the rule, the measured faster one, or the one asked for.

Measured on a clock of our own: the stand-ins for the two kernels let it go forward by the seconds
they are given, so what `pick_backend` measures is known exactly and nothing depends on the machine.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.data.batch import FeatureLayout
from recsys.embeddings import backend
from recsys.embeddings.backend import Choice, backend_by_rule, build_table, pick_backend
from recsys.embeddings.plan import EmbeddingPlan, Group
from recsys.embeddings.table import TableConfig

CPU = torch.device("cpu")
LAYOUTS = (
    FeatureLayout((("id", 2), ("brand", 1)), (("words", 1),), ()),
    FeatureLayout((("user", 1),), (), ()),
)
PLAN = EmbeddingPlan(num_rows=50, dim=4, layouts=LAYOUTS)


class Clock:
    """Seconds that pass only where somebody lets them, and what the kernels were given."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns: list[str] = []
        self.configs: list[TableConfig] = []
        self.read: dict[str, list[Tensor]] = {}

    def kernel(self, name: str, forward: Iterable[float], backward: float) -> type:
        """Return a stand-in: call number i takes `forward[i]` seconds, its backward `backward`."""
        clock, spent = self, iter(forward)

        class StandIn:
            def __init__(self, config: TableConfig, device: torch.device) -> None:
                clock.configs.append(config)

            def __call__(self, rows: Tensor, offsets: Tensor) -> Tensor:
                assert torch.equal(offsets.diff(), torch.ones(len(rows), dtype=torch.int64))
                clock.turns.append(name)
                clock.read.setdefault(name, []).append(rows)
                clock.now += next(spent)
                pooled = torch.zeros(len(rows), 4, requires_grad=True)
                pooled.register_hook(self.update)
                return pooled

            def update(self, gradient: Tensor) -> None:
                clock.now += backward

        return StandIn


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backend, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def pick(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    fbgemm: tuple[Iterable[float], float],
    twin: tuple[Iterable[float], float],
    **config: Any,
) -> Choice:
    monkeypatch.setattr(backend, "imports", lambda: True)
    kernels = {"fbgemm": clock.kernel("fbgemm", *fbgemm), "torch": clock.kernel("torch", *twin)}
    monkeypatch.setattr(backend, "KERNELS", kernels)
    asked = TableConfig.model_validate({"num_rows": 50, "dim": 4, "backend": "measure", **config})
    return pick_backend(asked, PLAN, batch_size=16, device=CPU)


@pytest.mark.parametrize(
    ("fbgemm", "twin", "faster"),
    [
        ((1.0, 3.0), (1.0, 1.0), "torch"),  # the update decides, not the forward
        ((1.0, 1.0), (0.5, 3.0), "fbgemm"),
        ((3.0, 1.0), (1.0, 1.0), "torch"),
        ((1.0, 1.0), (1.0, 1.0), "fbgemm"),
        ((1.0, 1.0), (1.0, 0.875), "fbgemm"),  # faster by less than a tenth: noise
        ((1.0, 1.0), (1.0, 0.75), "torch"),
    ],
)
def test_the_faster_kernel_is_taken_by_its_whole_step(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    fbgemm: tuple[float, float],
    twin: tuple[float, float],
    faster: str,
) -> None:
    choice = pick(monkeypatch, clock, ([fbgemm[0]] * 9, fbgemm[1]), ([twin[0]] * 9, twin[1]))
    assert choice.backend == faster
    times = f"fbgemm {1e3 * sum(fbgemm):.1f} ms, torch {1e3 * sum(twin):.1f} ms"
    assert choice.reason == f"measured: {times} a step"


def test_neither_the_first_step_nor_a_disturbed_one_decides(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    # Sorted, without the first: 1 2 3 4 5 and 4 5 6 7 90; each step's backward takes one more.
    choice = pick(monkeypatch, clock, ([500, 5, 1, 3, 4, 2], 1.0), ([0, 4, 90, 6, 7, 5], 1.0))
    assert str(choice) == "fbgemm (measured: fbgemm 4000.0 ms, torch 7000.0 ms a step)"


def test_both_kernels_take_turns_on_the_same_rows_of_a_full_batch(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    pick(monkeypatch, clock, ([1.0] * 9, 1.0), ([1.0] * 9, 1.0))
    assert clock.turns == ["fbgemm", "torch"] * (len(clock.turns) // 2)
    for ours, theirs in zip(clock.read["fbgemm"], clock.read["torch"], strict=True):
        assert torch.equal(ours, theirs)
        assert len(ours) == 16 * (2 + 1 + 1 + 1)  # rows of the batch x lookups of both sides
        assert int(ours.min()) >= 0
        assert int(ours.max()) < 50


def test_a_large_table_is_timed_on_a_small_one_with_its_groups_counted(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    groups = {"ids": {"num_rows": 30, "features": ("id",)}}
    pick(monkeypatch, clock, ([1.0] * 9, 1.0), ([1.0] * 9, 1.0), groups=groups, eps=0.5)
    assert {config.total_rows for config in clock.configs} == {80}
    assert {config.eps for config in clock.configs} == {0.5}
    clock.configs.clear()
    pick(monkeypatch, clock, ([1.0] * 9, 1.0), ([1.0] * 9, 1.0), num_rows=2**31)
    assert {config.total_rows for config in clock.configs} == {200_000}


@pytest.mark.parametrize("asked", ["fbgemm", "torch"])
def test_what_the_configuration_names_is_taken_untimed(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, asked: str
) -> None:
    # The other kernel would be the faster one by far.
    slow, quick = ([9.0] * 9, 9.0), ([1.0] * 9, 0.0)
    fbgemm, twin = (slow, quick) if asked == "fbgemm" else (quick, slow)
    choice = pick(monkeypatch, clock, fbgemm, twin, backend=asked)
    assert (choice.backend, clock.turns) == (asked, [])
    assert str(choice) == f"{asked} (as configured)"


@pytest.mark.parametrize("asked", ["auto", "measure"])
@pytest.mark.parametrize(
    ("wish", "lacking"),
    [({"optimizer": "row_wise_adam"}, "row_wise_adam"), ({"weight_decay": 0.1}, "weight_decay")],
)
def test_what_fbgemm_cannot_do_runs_on_torch_untimed(
    clock: Clock, asked: str, wish: dict[str, Any], lacking: str
) -> None:
    config = TableConfig.model_validate({"num_rows": 50, "dim": 4, "backend": asked, **wish})
    choice = pick_backend(config, PLAN, batch_size=16, device=CPU)
    assert choice == Choice("torch", f"FBGEMM's kernel has no {lacking}")


@pytest.mark.parametrize("asked", ["auto", "measure"])
def test_without_fbgemm_the_table_runs_on_torch(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(backend, "imports", lambda: False)
    config = TableConfig.model_validate({"num_rows": 50, "dim": 4, "backend": asked})
    choice = pick_backend(config, PLAN, batch_size=16, device=CPU)
    assert choice == Choice("torch", "FBGEMM is not installed")


@pytest.mark.parametrize(
    ("optimizer", "device", "avx512", "kernel"),
    [
        ("row_wise_adagrad", "cpu", True, "fbgemm (CPU, row_wise_adagrad)"),
        ("row_wise_adagrad", "cpu", False, "torch (a processor without AVX-512)"),
        ("row_wise_adagrad", "cuda", False, "fbgemm (GPU)"),
        ("adagrad", "cpu", False, "fbgemm (CPU, adagrad)"),
        ("sgd", "cpu", False, "fbgemm (CPU, sgd)"),
    ],
)
def test_the_rule_looks_at_device_optimizer_and_processor(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, device: str, avx512: bool, kernel: str
) -> None:
    monkeypatch.setattr(backend, "imports", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": avx512})
    config = TableConfig.model_validate({"num_rows": 50, "dim": 4, "optimizer": optimizer})
    assert str(backend_by_rule(config, torch.device(device))) == kernel


def test_building_a_table_leaves_logging_as_it_was() -> None:
    config = TableConfig.model_validate({"num_rows": 8, "dim": 4, "backend": "fbgemm"})
    script = (
        "import logging, torch\n"
        "from recsys.embeddings.backend import build_table\n"
        "from recsys.embeddings.table import TableConfig\n"
        f"config = TableConfig.model_validate_json({config.model_dump_json()!r})\n"
        "build_table(config, device=torch.device('cpu'), seed=0)\n"
        "assert not logging.root.handlers, logging.root.handlers\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_rule_times_nothing(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    choice = pick(monkeypatch, clock, ([1.0] * 9, 1.0), ([1.0] * 9, 1.0), backend="auto")
    assert clock.turns == []
    assert choice == backend_by_rule(TableConfig(), CPU)


@pytest.mark.parametrize("asked", ["auto", "measure"])
def test_a_table_that_no_run_settled_is_built_by_the_rule(asked: str) -> None:
    config = TableConfig.model_validate({"num_rows": 50, "dim": 4, "backend": asked})
    table = build_table(config, device=CPU, seed=0)
    assert type(table) is backend.KERNELS[backend_by_rule(config, CPU).backend]


def test_the_real_kernels_are_timed() -> None:
    grouped = EmbeddingPlan(
        num_rows=50,
        dim=4,
        layouts=LAYOUTS,
        groups=(Group(name="i", num_rows=30, features=("id",)),),
    )
    groups = {"i": {"num_rows": 30, "features": ("id",)}}
    config = TableConfig.model_validate(
        {"num_rows": 50, "dim": 4, "groups": groups, "backend": "measure"}
    )
    choice = pick_backend(config, grouped, batch_size=16, device=CPU)
    found = re.fullmatch(r"measured: fbgemm ([\d.]+) ms, torch ([\d.]+) ms a step", choice.reason)
    assert found is not None
    assert all(float(milliseconds) > 0 for milliseconds in found.groups())


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.5), ("row_wise_adagrad", 1e-4)])
def test_weight_decay_draws_the_rows_that_were_read_towards_zero(
    optimizer: str, rate: float
) -> None:
    """Without another gradient SGD takes off learning_rate * weight_decay of a row."""
    config = TableConfig.model_validate(
        {
            "num_rows": 6,
            "dim": 4,
            "optimizer": optimizer,
            "learning_rate": rate,
            "weight_decay": 0.1,
            "backend": "torch",
        }
    )
    table = build_table(config, device=CPU, seed=0)
    before = table.weight.detach().clone()
    read = torch.tensor([1, 4])
    (table(read, torch.tensor([0, 1, 2])) * 0.0).sum().backward()
    after = table.weight.detach()
    assert (after[read].abs() < before[read].abs()).all()
    others = torch.tensor([0, 2, 3, 5])
    assert torch.equal(after[others], before[others])
    if optimizer == "sgd":
        torch.testing.assert_close(after[read], before[read] * (1 - rate * 0.1))
