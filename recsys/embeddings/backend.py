"""Which kernel runs the table: by a fixed rule, by a measurement, or as configured.

The kernels agree to the last digits alone, and a training makes such differences larger. So that
the same command gives the same weights, `auto` looks only at what does not change from run to run:
the device, the optimizer, whether FBGEMM imports and what the processor can do. Neither the number
of threads nor sizes decide: where the rule takes FBGEMM, it was the faster one on one thread and
on two, in every size of `tests/benchmarks/embedding_step.py`.

`measure` times both for this table at the start of a run, about a second; whatever else the
machine does influences its choice.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.embeddings.fbgemm_table import FbgemmTable, imports
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import BLOCK_ROWS, Backend, Table, TableConfig, initial_rows
from recsys.embeddings.torch_table import TorchTable

_ROWS, _REPEATS = 200_000, 5
_CLEARLY = 0.9  # of FBGEMM's time: below that noise cannot decide

KERNELS: dict[Backend, Callable[[TableConfig, torch.device], Table]] = {
    "fbgemm": FbgemmTable,
    "torch": TorchTable,
}


@dataclass(frozen=True)
class Choice:
    """A backend and the reason for its choice."""

    backend: Backend
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} ({self.reason})"


def build_table(config: TableConfig, *, device: torch.device, seed: int) -> Table:
    """Return a table with seeded initial weights, on the backend that `config` names.

    Where it names none, the rule decides.

    Raises:
        ConfigError: it names FBGEMM, which is not installed.
    """
    backend = config.backend
    if backend == "auto" or backend == "measure":
        backend = backend_by_rule(config, device).backend
    elif backend == "fbgemm" and not imports():
        raise ConfigError(
            "embedding.backend: fbgemm, but FBGEMM is not installed: pip install "
            "'recsys-engine[cpu]' (for a GPU: [gpu]), or set embedding.backend: auto"
        )
    table = KERNELS[backend](config, device)
    with torch.no_grad():
        for first in range(0, config.total_rows, BLOCK_ROWS):
            rows = initial_rows(config, seed, first, min(BLOCK_ROWS, config.total_rows - first))
            table.weight[first : first + len(rows)] = rows
    return table


def backend_by_rule(config: TableConfig, device: torch.device) -> Choice:
    """Return the backend that `auto` chooses on this machine.

    FBGEMM's step of row-wise Adagrad takes some 400 ns a row with AVX2, where its one of plain SGD
    takes 100: there the torch kernel needs two thirds of its time. With AVX-512 it is FBGEMM that
    needs half of the torch kernel's.
    """
    lacking = config.lacking_in_fbgemm is not None
    if not lacking and device.type == "cpu" and _is_slow_in_fbgemm(config):
        return Choice("torch", "a processor without AVX-512")
    why_not = _why_not_fbgemm(config)  # imports it
    if why_not is not None:
        return Choice("torch", why_not)
    where = "GPU" if device.type == "cuda" else f"CPU, {config.optimizer}"
    return Choice("fbgemm", f"{where}")


def pick_backend(
    config: TableConfig, plan: EmbeddingPlan, *, batch_size: int, device: torch.device
) -> Choice:
    """Return the backend of a run: as configured, measured, or by the rule."""
    if config.backend == "measure":
        return measured_backend(config, plan, batch_size=batch_size, device=device)
    if config.backend == "auto":
        return backend_by_rule(config, device)
    return Choice(config.backend, "as configured")


def measured_backend(
    config: TableConfig, plan: EmbeddingPlan, *, batch_size: int, device: torch.device
) -> Choice:
    """Return the faster backend for steps of `batch_size` rows; about a second.

    Timed by the wall clock, forward, backward and update, on at most 200,000 rows and with one
    value a lookup: FBGEMM's CPU kernel uses one thread, the other as many as torch has. FBGEMM
    stays unless the other is faster by a tenth, so that noise does not decide.
    """
    why_not = _why_not_fbgemm(config)
    if why_not is not None:
        return Choice("torch", why_not)
    lookups = sum(layout.num_lookups for layout in plan.layouts)
    small = config.model_copy(
        update={"num_rows": min(config.total_rows, _ROWS), "groups": {}, "backend": "torch"}
    )
    generator = torch.Generator().manual_seed(0)
    ranks = torch.rand(batch_size * max(lookups, 1), generator=generator) ** 4  # near Zipf's
    rows = (ranks * small.num_rows).long().clamp(max=small.num_rows - 1).to(device)
    offsets = torch.arange(len(rows) + 1, device=device)
    tables = {name: kernel(small, device) for name, kernel in KERNELS.items()}
    times: dict[Backend, list[float]] = {name: [] for name in tables}
    for _ in range(_REPEATS + 1):
        for name, table in tables.items():
            times[name].append(_step(table, rows, offsets))
    seconds = {name: median(each[1:]) for name, each in times.items()}  # the first is a warm-up
    is_torch = seconds["torch"] < _CLEARLY * seconds["fbgemm"]
    measured = ", ".join(f"{name} {1e3 * each:.1f} ms" for name, each in seconds.items())
    return Choice("torch" if is_torch else "fbgemm", f"measured: {measured} a step")


def _why_not_fbgemm(config: TableConfig) -> str | None:
    """Describe why FBGEMM cannot run the table; None: it can."""
    lacking = config.lacking_in_fbgemm
    if lacking is not None:
        return f"FBGEMM's kernel has no {lacking}"
    return None if imports() else "FBGEMM is not installed"


def _is_slow_in_fbgemm(config: TableConfig) -> bool:
    return config.optimizer == "row_wise_adagrad" and not _has_avx512()


def _has_avx512() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_f", False))


def _step(table: Table, rows: Tensor, offsets: Tensor) -> float:
    start = time.perf_counter()
    table(rows, offsets).sum().backward()
    if rows.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
