"""CPU time of a training step of the unified embedding beside what else one could use.

A step is forward, backward and update of the table alone: N rows of F single-valued fields in,
(N, F * dim) out, a fixed gradient back. The module starts from cached 64-bit value hashes, so
salting and hashing are in its time; every other reads the very same rows, computed beforehand:

    tbe           FBGEMM's SplitTableBatchedEmbeddingBagsCodegen, all fields one stream of bags
    torch         the module again, on its pure-torch kernel
    sparse_adam   nn.Embedding(sparse=True) and SparseAdam
    dense_adam    nn.Embedding and fused Adam; left out where table, gradient and moments are > 8 GB

One thread, CPU time, each taken in turn with the module (on FBGEMM) in one run; medians. Two
threads by the clock for the torch kernel, the module on FBGEMM beside it. Ids are Zipf's, of
fields with 100 to 10 M values. Peak memory is of a process of its own for each, a few steps long.
"""

import itertools
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _harness import Benchmark, Timing, alternated, peak_memory_mib
from torch import Tensor, nn
from torch.optim import Optimizer

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Backend, TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.encoding.hashing import splitmix64
from recsys.training.engine.machine import keep_freed_memory

CPU, SEED, EXPONENT = torch.device("cpu"), 0, 1.05
NUM_BATCHES = 4
DENSE_LIMIT_BYTES = 8 * 10**9
Step = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    num_fields: int
    dim: int
    batch_size: int
    num_rows: int

    def __str__(self) -> str:
        rows = f"{self.num_rows / 1e6:g} M rows"
        return f"{self.num_fields} fields x {self.dim}, batch {self.batch_size}, {rows}"

    @property
    def table_bytes(self) -> int:
        return self.num_rows * self.dim * 4


class Work:
    """What every contender of a cell does: the same values, rows and gradient."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        generator = torch.Generator().manual_seed(SEED)
        sizes = torch.logspace(2, 7, cell.num_fields)
        power = 1 - EXPONENT
        self.values = []
        for _ in range(NUM_BATCHES):
            drawn = torch.rand(cell.batch_size, cell.num_fields, generator=generator)
            ranks = ((sizes**power - 1) * drawn + 1) ** (1 / power)  # bounded Zipf, inverted
            hashes = splitmix64(ranks.long().numpy().view("uint64").ravel()).view("int64")
            self.values.append(torch.from_numpy(hashes).view(drawn.shape))
        width = cell.num_fields * cell.dim
        self.gradient = torch.randn(cell.batch_size, width, generator=generator)
        fields = tuple((f"field_{number}", 1) for number in range(cell.num_fields))
        layout = FeatureLayout(fields, (), ())
        self.plan = EmbeddingPlan(num_rows=cell.num_rows, dim=cell.dim, layouts=(layout,))
        self.rows = [
            torch.stack(
                [
                    self.plan.rows_of(name, values[:, column])[:, 0]
                    for column, (name, _) in enumerate(fields)
                ],
                dim=1,
            )
            for values in self.values
        ]

    def module(self, backend: Backend) -> Step:
        config = TableConfig(num_rows=self.cell.num_rows, dim=self.cell.dim, backend=backend)
        embedding = UnifiedEmbedding(self.plan, build_table(config, device=CPU, seed=SEED))
        dense = torch.zeros(self.cell.batch_size, 0)
        blocks = itertools.cycle([FeatureBlock(values, (), dense) for values in self.values])
        return lambda: embedding([next(blocks)])[0].backward(self.gradient)

    def fbgemm(self) -> Step:
        return self.module("fbgemm")

    def torch(self) -> Step:
        return self.module("torch")

    def tbe(self) -> Step:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        cell, config = self.cell, TableConfig(num_rows=1)
        kernel = SplitTableBatchedEmbeddingBagsCodegen(
            [(cell.num_rows, cell.dim, EmbeddingLocation.HOST, ComputeDevice.CPU)],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=config.learning_rate,
            eps=config.eps,
            device=CPU,
        )
        kernel.split_embedding_weights()[0].uniform_(-0.1, 0.1)
        rows = itertools.cycle([rows.flatten() for rows in self.rows])
        offsets = torch.arange(cell.batch_size * cell.num_fields + 1)
        gradient = self.gradient.view(-1, cell.dim)
        return lambda: kernel(next(rows), offsets).backward(gradient)

    def sparse_adam(self) -> Step:
        return self._parameter(True, lambda weight: torch.optim.SparseAdam([weight], lr=0.002))

    def dense_adam(self) -> Step:
        return self._parameter(
            False, lambda weight: torch.optim.Adam([weight], lr=0.002, fused=True)
        )

    def _parameter(self, sparse: bool, make: Callable[[nn.Parameter], Optimizer]) -> Step:
        cell = self.cell
        embedding = nn.Embedding(cell.num_rows, cell.dim, sparse=sparse)
        optimizer = make(embedding.weight)
        rows = itertools.cycle(self.rows)
        gradient = self.gradient.view(cell.batch_size, cell.num_fields, cell.dim)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            embedding(next(rows)).backward(gradient)
            optimizer.step()

        step()
        for moment in optimizer.state[embedding.weight].values():
            if isinstance(moment, Tensor) and moment.ndim:
                moment.zero_()  # touches each page now, not in a step that is timed
        return step


def is_too_large(cell: Cell, peer: str) -> bool:
    """Whether a peer keeps (table, gradient, two moments) more than the limit."""
    return peer == "dense_adam" and 4 * cell.table_bytes > DENSE_LIMIT_BYTES


def measure(bench: Benchmark, cell: Cell, repeats: int) -> dict[str, Any]:
    """Print and return one cell: CPU milliseconds of each, ratios against the module."""
    torch.set_num_threads(1)
    work = Work(cell)
    module = work.fbgemm()
    found: dict[str, Any] = {"cell": str(cell)}
    bench.row(str(cell), "")
    for peer in ("tbe", "torch", "sparse_adam", "dense_adam"):
        if is_too_large(cell, peer):
            found[f"{peer}_skipped"] = f"{4 * cell.table_bytes / 1e9:.1f} GB"
            bench.row(f"  {peer}", f"left out: {found[f'{peer}_skipped']}")
            continue
        step = getattr(work, peer)()
        times = alternated({"module": module, peer: step}, 3 if peer == "dense_adam" else repeats)
        ratio = times[peer].cpu / times["module"].cpu
        found |= {f"{peer}_ms": round(1e3 * times[peer].cpu, 2), f"{peer}_ratio": round(ratio, 3)}
        if peer == "tbe":
            found["module_ms"] = round(1e3 * times["module"].cpu, 2)
            bench.row("  module", f"{found['module_ms']:9.2f} CPU ms")
        bench.row(f"  {peer}", f"{found[f'{peer}_ms']:9.2f} CPU ms, {ratio:.3f} of the module")
        if peer == "torch":
            found |= two_threads(bench, module, step, repeats)
        del step
    return found


def two_threads(bench: Benchmark, module: Step, twin: Step, repeats: int) -> dict[str, float]:
    """Return the clock's seconds of the torch kernel on two threads beside FBGEMM's."""
    torch.set_num_threads(2)
    times: dict[str, Timing] = alternated({"module": module, "torch": twin}, repeats)
    torch.set_num_threads(1)
    ratio = times["torch"].wall / times["module"].wall
    milliseconds = 1e3 * times["torch"].wall
    bench.row("  torch, two threads", f"{milliseconds:9.2f} ms by the clock, {ratio:.3f} of it")
    return {"torch_two_threads_wall_ratio": round(ratio, 3)}


def peak_of(cell: Cell, name: str) -> int:
    """Return the largest resident MiB of a process that takes a few steps, less the inputs'."""
    torch.set_num_threads(1)
    work = Work(cell)
    before = high_water_mib()
    step = getattr(work, name)()
    for _ in range(NUM_BATCHES):
        step()
    return high_water_mib() - before


def high_water_mib() -> int:
    """Largest resident memory of this process alone; rusage's starts with that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def peaks(bench: Benchmark, cell: Cell) -> dict[str, int]:
    """Print and return the peak memory of each contender of one cell, MiB."""
    found = {}
    bench.row(f"peak memory, {cell}", "")
    for name in ("fbgemm", "torch", "tbe", "sparse_adam", "dense_adam"):
        if is_too_large(cell, name):
            continue
        with bench.workers(1) as pool:
            found[name] = pool.submit(peak_of, cell, name).result()
        bench.row(f"  {name}", f"{found[name]:9} MiB, table {cell.table_bytes >> 20} MiB")
    return found


def main() -> None:
    bench = Benchmark("embedding_step", __doc__ or "")
    keep_freed_memory()
    rows = bench.sized((1_000_000, 10_000_000), (1_000_000,), (1_000,))
    fields, dims, batches = bench.sized(GRID, ((26,), (16, 64), (4096,)), ((3,), (8,), (64,)))
    cells = [Cell(f, d, b, m) for m, d, f, b in itertools.product(rows, dims, fields, batches)]
    found = [measure(bench, cell, bench.sized(9, 5, 1)) for cell in cells]
    memory = {str(cell): peaks(bench, cell) for cell in (cells[:1] if bench.quick else cells[::8])}

    def over_grid(key: str) -> float:
        return statistics.median(cell[key] for cell in found if key in cell)

    figures = {
        "vs_tbe": round(statistics.median(1 / cell["tbe_ratio"] for cell in found), 3),
        "vs_tbe_torch": round(
            statistics.median(cell["torch_ratio"] / cell["tbe_ratio"] for cell in found), 3
        ),
        "vs_sparse_adam": round(over_grid("sparse_adam_ratio"), 2),
        "vs_dense_adam": round(over_grid("dense_adam_ratio"), 2),
        "torch_two_threads_wall_ratio": round(over_grid("torch_two_threads_wall_ratio"), 3),
    }
    for name, value in figures.items():
        bench.row(f"median: {name}", f"{value}")
    bench.finish(
        {
            **figures,
            "cells": found,
            "peak_memory_by_contender_mib": memory,
            "peak_memory_mib": peak_memory_mib(),
            "zipf_exponent": EXPONENT,
            "threads": 1,
            "seed": SEED,
        }
    )


GRID = ((26, 39), (16, 64), (4096, 8192))

if __name__ == "__main__":
    sys.exit(main())
