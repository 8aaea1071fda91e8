"""Which kernel runs the table: both can be timed on this machine, for this table, before a run."""

import time
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from recsys.embeddings.fbgemm_table import FbgemmTable, supports
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import BLOCK_ROWS, Backend, Table, TableConfig, initial_rows
from recsys.embeddings.torch_table import TorchTable

_ROWS, _REPEATS = 200_000, 5
_CLEARLY = 0.9  # of FBGEMM's time: below that noise cannot decide


@dataclass(frozen=True)
class Choice:
    """A backend, and the seconds a step that each one took; none where there was no choice."""

    backend: Backend
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The choice in words."""
        times = ", ".join(f"{name} {1e3 * each:.1f} ms" for name, each in self.seconds.items())
        return f"table kernel: {self.backend}" + (f" ({times} a step)" if times else "")


def build_table(config: TableConfig, *, device: torch.device, seed: int) -> Table:
    """Return a table with seeded initial weights, on the backend that `config` asks for.

    `auto` is FBGEMM here where it can be had; `pick_backend` times both.
    """
    backend = config.backend
    if backend == "auto":
        backend = "fbgemm" if supports(config) else "torch"
    table: Table
    table = FbgemmTable(config, device) if backend == "fbgemm" else TorchTable(config, device)
    with torch.no_grad():
        for first in range(0, config.total_rows, BLOCK_ROWS):
            rows = initial_rows(config, seed, first, min(BLOCK_ROWS, config.total_rows - first))
            table.weight[first : first + len(rows)] = rows
    return table


def pick_backend(
    config: TableConfig, plan: EmbeddingPlan, *, batch_size: int, device: torch.device
) -> Choice:
    """Return the faster backend for steps of `batch_size` rows; about a second.

    Timed by the wall clock, forward, backward and update, on at most 200,000 rows and with one
    value a lookup: FBGEMM's CPU kernel uses one thread, the other as many as torch has. FBGEMM
    stays unless the other is faster by a tenth, so that noise does not decide.
    """
    if config.backend != "auto":
        return Choice(config.backend)
    if not supports(config):
        return Choice("torch")
    lookups = sum(layout.num_lookups for layout in plan.layouts)
    small = config.model_copy(
        update={"num_rows": min(config.total_rows, _ROWS), "groups": {}, "backend": "torch"}
    )
    generator = torch.Generator().manual_seed(0)
    ranks = torch.rand(batch_size * max(lookups, 1), generator=generator) ** 4  # near Zipf's
    rows = (ranks * small.num_rows).long().clamp(max=small.num_rows - 1).to(device)
    offsets = torch.arange(len(rows) + 1, device=device)
    tables: dict[str, FbgemmTable | TorchTable]
    tables = {"fbgemm": FbgemmTable(small, device), "torch": TorchTable(small, device)}
    times: dict[str, list[float]] = {name: [] for name in tables}
    for _ in range(_REPEATS + 1):
        for name, table in tables.items():
            times[name].append(_step(table, rows, offsets))
    seconds = {name: median(each[1:]) for name, each in times.items()}  # the first is a warm-up
    is_torch = seconds["torch"] < _CLEARLY * seconds["fbgemm"]
    return Choice("torch" if is_torch else "fbgemm", seconds)


def _step(table: FbgemmTable | TorchTable, rows: Tensor, offsets: Tensor) -> float:
    start = time.perf_counter()
    table(rows, offsets).sum().backward()
    if rows.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
