"""One process against two at the same global batch: the DCN ranker with its table sharded.

The loop of `recsys train` on generated rows (Zipf ids, ready in memory, so that loading costs
nothing), three ways: one process with one thread, one process with a thread a core, two processes
of one thread each. They take turns in blocks of steps; wall and CPU time a step are medians over
the blocks, and the CPU time of two processes is the sum of both. On a machine of two cores the
second and the third share the same cores: this tells what the traffic between ranks costs, not
what a second machine would bring.

    --set features=26,39     categorical features (--quick: 26)
    --set batch_size=8192    rows of the global batch
    --set num_rows=1000000   rows of the table, of dim 16 (--quick: 100,000)
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Benchmark

from recsys.core.events import Event, StepDone
from recsys.data.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.embeddings.backend import pick_backend
from recsys.embeddings.plan import EmbeddingPlan
from recsys.features.encoding.hashing import splitmix64
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World, join
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import ranking_task

POOL, VALUES, EXPONENT, SEED = 8, 1 << 20, 1.1, 0
WAYS = {"one_thread": (1, 1), "one_process": (1, os.cpu_count() or 1), "two_processes": (2, 1)}
"""Processes, and threads of each."""


@dataclass(frozen=True)
class GeneratedRows:
    """A `RowLoader` over a few ready batches, which come again and again."""

    batches: list[RankingBatch]
    num_steps: int = 1_000_000

    def epoch(self, epoch: int, first_step: int = 0, **_: int) -> Iterator[RankingBatch]:
        for step in range(first_step, self.num_steps):
            yield self.batches[step % len(self.batches)]

    def ordered(self, part: int, batch_size: int, **_: int) -> Iterator[RankingBatch]:
        raise NotImplementedError("nothing is validated")


class Pacer:
    """Waits for a word before each block of steps, and reports the block."""

    def __init__(self, block: int) -> None:
        self.block, self.losses = block, []  # type: ignore[var-annotated]
        print(json.dumps({"ready": True}), flush=True)
        self._wait()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        self.losses.append(event.loss)
        if len(self.losses) < self.block:
            return
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        told = {"cpu": cpu / self.block, "wall": wall / self.block, "losses": self.losses}
        print(json.dumps(told), flush=True)
        self._wait()

    def _wait(self) -> None:
        if sys.stdin.readline() != "go\n":
            os._exit(0)  # all blocks are done
        self.losses = []
        self.cpu, self.wall = time.process_time(), time.perf_counter()


def config_of(features: int, batch_size: int, num_rows: int) -> ExperimentConfig:
    names = [f"c{number}" for number in range(features)]
    raw: dict[str, Any] = {
        "data": {"interactions": "generated"},
        "schema": {
            "interactions": {"user": "user", "item": "item", "label": {"column": "click"}},
            "features": [
                {"name": name, "table": "interactions", "kind": "categorical"} for name in names
            ],
        },
        "model": {"kind": "dcn", "dropout": 0},
        "embedding": {"num_rows": num_rows, "dim": 16},
        "training": {
            "batch_size": batch_size,
            "precision": "float32",
            "device": "cpu",
            "checkpoint_every": 10**9,
            "seed": SEED,
        },
    }
    return parse_config(raw, source="the benchmark")


def generated(features: int, batch_size: int, world: World) -> list[RankingBatch]:
    """Return this rank's share of `POOL` global batches; the label depends on two features."""
    rng = np.random.default_rng(SEED)
    batches = []
    for _ in range(POOL):
        ids = rng.zipf(EXPONENT, (batch_size, features)) % VALUES
        chance = 0.2 + 0.3 * (ids[:, 0] % 2) + 0.3 * (ids[:, 1] % 2)
        label = torch.from_numpy((rng.random(batch_size) < chance).astype(np.float32))
        column = np.arange(features, dtype=np.uint64) << np.uint64(40)
        hashed = splitmix64((ids.astype(np.uint64) + column).ravel()).view(np.int64)
        single = torch.from_numpy(hashed.reshape(ids.shape))
        mine = slice(world.rank, None, world.size)
        count = len(label[mine])
        block = FeatureBlock(single[mine].contiguous(), (), torch.zeros(count, 0))
        examples = torch.arange(batch_size)[mine]
        batches.append(RankingBatch(block, label[mine], torch.ones(count), examples))
    return batches


def rank(features: int, batch_size: int, num_rows: int, block: int, threads: int) -> None:
    """Train as one of the processes, a block at a time."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    world = join("cpu")
    config = config_of(features, batch_size, num_rows)
    layout = FeatureLayout(tuple((f"c{n}", 1) for n in range(features)), (), ())
    if world.size == 1:
        plan = EmbeddingPlan.of(config.embedding, (layout,))
        choice = pick_backend(
            config.embedding, plan, batch_size=batch_size, device=torch.device("cpu")
        )
        table = config.embedding.model_copy(update={"backend": choice.backend})
        config = config.model_copy(update={"embedding": table})
    rows: Any = RankingRows(
        loader=GeneratedRows(generated(features, batch_size, world)),
        schema=config.schema_,
        encoder=None,  # type: ignore[arg-type]
        layout=layout,
        fingerprint="",
        rows=(),
        drops=(),
    )
    task = ranking_task(config, rows, world)
    with tempfile.TemporaryDirectory() as folder:
        fit(task, config.training, Checkpoints(Path(folder), world), (Pacer(block),), world)


class Way:
    """The processes of one way to train."""

    def __init__(self, arguments: list[int], processes: int, threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ranks = []
        for number in range(processes):
            own = {"WORLD_SIZE": processes, "RANK": number, "LOCAL_RANK": number}
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": threads}
            command = [sys.executable, __file__, "--rank", *map(str, [*arguments, threads])]
            environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
            self.ranks.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        self.answers()

    def answers(self) -> list[dict[str, Any]]:
        lines = [one.stdout.readline() for one in self.ranks if one.stdout is not None]
        return [json.loads(line) for line in lines]

    def block(self) -> tuple[float, float, list[float]]:
        """Return wall and CPU seconds of a step, and the losses."""
        for one in self.ranks:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        told = self.answers()
        wall = max(one["wall"] for one in told)
        return wall, sum(one["cpu"] for one in told), told[0]["losses"]

    def end(self) -> None:
        for one in self.ranks:
            one.communicate("stop\n", timeout=60)


def compare(names: Sequence[str], arguments: list[int], blocks: int) -> Any:
    """Return the figures of every way, and how far their losses are apart."""
    ways = {name: Way(arguments, *WAYS[name]) for name in names}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(blocks + 1):
        for name, way in ways.items():
            wall, cpu, own = way.block()
            losses[name] += own
            if number:  # the first block warms up
                found[name].append((wall, cpu))
    for way in ways.values():
        way.end()
    figures: dict[str, Any] = {}
    for name, timings in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*timings, strict=True))
        figures[name] = {"wall_ms": round(1e3 * wall, 1), "cpu_ms": round(1e3 * cpu, 1)}
    two = figures["two_processes"]
    for name in [name for name in names if name != "two_processes"]:
        pair = zip(losses[name], losses["two_processes"], strict=True)
        apart = max(figures.get("max_loss_difference", 0.0), *(abs(a - b) for a, b in pair))
        figures["max_loss_difference"] = float(f"{apart:.1e}")
        figures[f"wall_of_two_vs_{name}"] = round(two["wall_ms"] / figures[name]["wall_ms"], 2)
        figures[f"cpu_of_two_vs_{name}"] = round(two["cpu_ms"] / figures[name]["cpu_ms"], 2)
    return figures


def main() -> None:
    """Compare, for each number of features."""
    benchmark = Benchmark("two_processes", __doc__ or "")
    given = dict(one.split("=", 1) for one in benchmark.overrides)
    counts = given.get("features", benchmark.sized("26,39", "26", "26"))
    batch_size = int(given.get("batch_size", benchmark.sized(8192, 8192, 64)))
    num_rows = int(given.get("num_rows", benchmark.sized(1_000_000, 100_000, 1_000)))
    names = benchmark.sized([*WAYS], [*WAYS], ["two_processes"])
    steps, blocks = benchmark.sized((10, 9), (5, 5), (1, 1))
    figures: dict[str, Any] = {"cores": os.cpu_count(), "batch_size": batch_size}
    figures |= {"num_rows": num_rows, "dim": 16}
    for count in map(int, counts.split(",")):
        found = compare(names, [count, batch_size, num_rows, steps], blocks)
        for name in names:
            wall, cpu = found[name]["wall_ms"], found[name]["cpu_ms"]
            benchmark.row(f"{count} features, {name}", f"{wall:8.1f} ms wall {cpu:8.1f} ms CPU")
        benchmark.row("  losses apart by at most", f"{found.get('max_loss_difference')}")
        figures[f"features_{count}"] = found
    benchmark.finish(figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        rank(*map(int, sys.argv[2:]))
    else:
        main()
