"""Training throughput of the two-tower: the fused table beside nn.Embedding(sparse) + SparseAdam.

The same model, examples and dense optimizer, three ways: as the engine does it; with the sparse
table on the same batches, in which each distinct item stands once; and with the sparse table
when every mention of an item (candidates and each event of each history) is looked up and encoded
by itself, as a plain implementation would. Steps alternate in blocks, CPU time is counted, medians
over the blocks are compared. Data: MovieLens-1M (ratings of at least 4, leave one out) where it
is at hand, else the built-in world.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from _harness import Benchmark, peak_memory_mib
from _loaned import folder_of
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import Jagged, PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.features.propose.tables import infer
from recsys.features.world.world import RetailWorld
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.loop import Task
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.task import two_tower_task


class SparseTable:
    """The baseline: a gradient over touched rows, and SparseAdam's two moments for them."""

    def __init__(self, num_rows: int, dim: int) -> None:
        self.parameter = nn.Parameter(torch.empty(num_rows, dim).uniform_(-0.1, 0.1))
        self.weight = self.parameter.data
        self.row_state = torch.zeros(num_rows)
        self.optimizer = torch.optim.SparseAdam([self.parameter], lr=0.002)

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            rows,
            self.parameter,
            offsets,
            mode="sum",
            sparse=True,
            per_sample_weights=weights,
            include_last_offset=True,
        )


def ml1m_config(folder: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    found = infer(
        [
            folder_of("ml-1m") / name
            for name in ("ratings.parquet", "movies.parquet", "users.parquet")
        ]
    )
    path = folder / "recsys.yaml"
    path.write_text(found.yaml.replace("# - {column: rating", "- {column: rating"))
    return load_config(path, overrides)


def world_config(folder: Path, overrides: tuple[str, ...]) -> ExperimentConfig:
    world = RetailWorld.create(seed=0)
    files = world.write(folder)
    (folder / "recsys.yaml").write_text(world.config_text(files))
    return load_config(folder / "recsys.yaml", overrides)


def every_mention(batch: PairBatch, data: Dataset) -> PairBatch:
    """Return the same examples with an item row of its own for each event of each history."""
    candidates = batch.num_candidates
    mentioned = batch.item_rows[batch.history.values]
    rows = torch.cat([batch.item_rows[:candidates], mentioned])
    own = Jagged(candidates + torch.arange(len(mentioned)), batch.history.offsets)
    return replace(batch, items=data.items.take(rows), item_rows=rows, history=own)


def stepper(task: Task[PairBatch], sparse: SparseTable | None) -> Callable[[PairBatch], None]:
    """Return one training step as the loop takes it; `sparse` replaces the model's table."""
    trained = task.trained
    if sparse is not None:
        trained.model.embedding.table = sparse  # type: ignore[union-attr]

    def step(batch: PairBatch) -> None:
        trained.optimizer.zero_grad(set_to_none=True)
        if sparse is not None:
            sparse.optimizer.zero_grad(set_to_none=True)
        task.loss(batch).backward()
        trained.optimizer.step()
        if sparse is not None:
            sparse.optimizer.step()

    return step


def cpu_ms_a_step(step: Callable[[PairBatch], None], batches: list[PairBatch]) -> float:
    started = time.process_time()
    for batch in batches:
        step(batch)
    return (time.process_time() - started) * 1000 / len(batches)


def main() -> None:
    bench = Benchmark("two_tower_epoch", __doc__ or "")
    keep_freed_memory()
    torch.set_num_threads(1)
    blocks, block_steps = bench.sized((9, 20), (3, 10), (1, 2))
    loaned = folder_of("ml-1m").is_dir()
    with tempfile.TemporaryDirectory() as folder:
        make = ml1m_config if loaned else world_config
        config = make(Path(folder), bench.overrides)
        data: Dataset = load_data(config)
    queries = build_queries(data, VALIDATION, history_length=1, filter_seen=True, limit=1, seed=0)
    tasks = [two_tower_task(config, data, queries, World()) for _ in range(3)]
    size = (config.embedding.num_rows, config.embedding.dim)
    steps = [stepper(task, None if i == 0 else SparseTable(*size)) for i, task in enumerate(tasks)]
    source = itertools.chain.from_iterable(tasks[0].batches(n, 0) for n in itertools.count())
    costs: list[list[float]] = []
    loading = []
    for block in range(blocks + 1):
        started = time.process_time()
        batches = list(itertools.islice(source, block_steps))
        loading.append((time.process_time() - started) * 1000 / len(batches))
        expanded = [every_mention(batch, data) for batch in batches]
        sets = (batches, batches, expanded)
        times = [cpu_ms_a_step(step, one) for step, one in zip(steps, sets, strict=True)]
        if block:  # the first block warms up
            costs.append(times)
    rows = config.training.batch_size
    fused_ms, plain_ms, mention_ms = (statistics.median(one) for one in zip(*costs, strict=True))
    bench.row("fused row-wise Adagrad", f"{fused_ms:.1f} CPU ms a step of {rows}")
    bench.row("sparse + SparseAdam, same batches", f"{plain_ms:.1f} CPU ms a step of {rows}")
    bench.row("sparse + SparseAdam, every mention", f"{mention_ms:.1f} CPU ms a step of {rows}")
    bench.row("making a batch", f"{statistics.median(loading):.1f} CPU ms, in its own thread")
    bench.finish(
        {
            "data": "ml-1m" if loaned else "built-in world",
            "examples_per_cpu_s": round(rows * 1000 / (fused_ms + statistics.median(loading))),
            "fused_ms": round(fused_ms, 2),
            "sparse_adam_ms": round(plain_ms, 2),
            "sparse_adam_every_mention_ms": round(mention_ms, 2),
            "vs_sparse_adam_same_batches": round(plain_ms / fused_ms, 2),
            "vs_sparse_adam": round(mention_ms / fused_ms, 2),
            "batch_size": rows,
            "table_rows": config.embedding.num_rows,
            "peak_memory_mib": peak_memory_mib(),
            "threads": 1,
            "seed": config.training.seed,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
