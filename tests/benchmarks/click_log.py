"""A click log larger than memory: encode it, read it shuffled, train a ranker for one epoch.

Rows a CPU second and resident memory of each, every part in a process of its own. Training is
what `recsys train` does with `data.stream: true`: the ranker, the loop, its checkpoints.

The log grows out of 10,000 rows of Criteo's (13 counts, 26 categories): rows are drawn again,
counts jittered, some categories replaced by fresh values with a Zipf tail, and the label drawn
by a planted rule, whose log loss `best_logloss` is what a model can reach at best.

    --set rows=1000000,50000000   sizes of the log, one after another (default 5,000,000;
                                  --quick 200,000)
    --set folder=/big/disk        where the log stays; one of that size is not made again
                                  (default: a temporary folder, deleted afterwards)
    --set table_rows=1000000      rows of the table (--quick 100,000)
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from _harness import Benchmark, peak_memory_mib
from _loaned import loaned
from numpy.typing import NDArray

from recsys.core.events import Event, StepDone
from recsys.embeddings.backend import pick_backend
from recsys.embeddings.plan import EmbeddingPlan
from recsys.features.clicks.loader import ClickLoader
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.encoding.hashing import hash_values, splitmix64
from recsys.features.schema import Schema
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import open_rows
from recsys.training.families.ranker.task import ranking_task

COUNTS = [f"I{number}" for number in range(1, 14)]
CATEGORIES = [f"C{number}" for number in range(1, 27)]
RULE = {"C3": 0.5, "C6": 0.6, "C9": 0.6, "C14": 0.7, "C17": 0.8, "C26": 0.5}
"""Weight of each category in the planted rule; a value's effect is a hash of it, in [-1, 1]."""
FILE_ROWS, CHUNK_ROWS = 1_000_000, 250_000
FRESH_SHARE, FRESH_VALUES = 0.15, 1 << 24
BATCH_SIZE, SEED = 8192, 0


def schema() -> Schema:
    """Return 13 counts on a log scale, 26 categories, a label."""
    features: list[dict[str, Any]] = [
        {"name": name, "table": "interactions", "kind": "numeric", "transform": "log1p"}
        for name in COUNTS
    ]
    features += [
        {"name": name, "table": "interactions", "kind": "categorical"} for name in CATEGORIES
    ]
    roles = {"label": {"column": "label"}}
    return Schema.model_validate_json(json.dumps({"interactions": roles, "features": features}))


def generate(folder: Path, rows: int) -> dict[str, Any]:
    """Write the log in files of a million rows; return the facts that `truth.json` keeps."""
    truth = folder / "truth.json"
    if truth.is_file() and (known := json.loads(truth.read_text()))["rows"] == rows:
        return dict(known)
    folder.mkdir(parents=True, exist_ok=True)
    source = pq.read_table(loaned("criteo-sample") / "criteo_10k.parquet").combine_chunks()
    rng = np.random.default_rng(SEED)
    loss = positive = 0.0
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        writer = None
        for start in range(first, min(first + FILE_ROWS, rows), CHUNK_ROWS):
            size = min(CHUNK_ROWS, first + FILE_ROWS - start, rows - start)
            chunk, probability = drawn(source, size, rng)
            label = rng.random(size) < probability
            loss -= float(np.log(np.where(label, probability, 1 - probability)).sum())
            positive += float(label.sum())
            chunk = chunk.add_column(0, "label", pa.array(label.astype(np.int32)))
            path = folder / f"part-{number:04d}.parquet"
            writer = writer or pq.ParquetWriter(path, chunk.schema)
            writer.write_table(chunk)
        assert writer is not None
        writer.close()
    facts = {"rows": rows, "best_logloss": loss / rows, "positive_rate": positive / rows}
    truth.write_text(json.dumps(facts))
    return facts


def drawn(
    source: pa.Table, size: int, rng: np.random.Generator
) -> tuple[pa.Table, NDArray[np.float64]]:
    """Return `size` rows without a label, and the probability that each label is 1."""
    rows = pa.array(rng.integers(0, len(source), size))
    columns: dict[str, pa.Array] = {}
    for name in COUNTS:
        values = source[name].combine_chunks().take(rows)
        factor = np.where(rng.random(size) < 0.3, np.exp(0.3 * rng.normal(size=size)), 1.0)
        columns[name] = pc.round(pc.multiply(values, pa.array(factor))).cast(pa.int32())
    logit = np.full(size, -1.2)
    for name in CATEGORIES:
        values = source[name].combine_chunks().take(rows).cast(pa.string())
        if pc.count_distinct(source[name]).as_py() > 100:
            fresh = pa.array(rng.random(size) < FRESH_SHARE)
            values = pc.if_else(fresh, fresh_values(name, size, rng), values)
        columns[name] = values
        if name in RULE:
            logit += RULE[name] * 2 * effects(name, values)
    seen = np.log1p(np.asarray(columns["I7"].fill_null(0)).clip(0))
    logit += 0.4 * (seen - 1.5)
    return pa.table(columns), 1 / (1 + np.exp(-logit))


def fresh_values(name: str, size: int, rng: np.random.Generator) -> pa.Array:
    """Return `size` words of eight hex digits, most of them common, some met once."""
    ranks = np.exp(rng.random(size) * np.log(FRESH_VALUES)).astype(np.uint64)
    word = splitmix64(ranks + np.uint64(int(name[1:]) << 40)) >> np.uint64(32)
    nibbles = (word[:, None] >> np.arange(28, -1, -4, dtype=np.uint64)) & np.uint64(15)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles]
    offsets = np.arange(0, 8 * size + 1, 8, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits))]
    return pa.Array.from_buffers(pa.string(), size, buffers)


def effects(name: str, values: pa.Array) -> NDArray[np.float64]:
    """Return the planted effect of each value, (N,) in [-1, 1]."""
    mixed = splitmix64(hash_values(values).view(np.uint64) + np.uint64(int(name[1:])))
    return mixed / 2.0**63 - 1


def config_of(source: Path, cache: Path, table_rows: int, batch_size: int) -> ExperimentConfig:
    """Return the experiment: a ranker, one epoch over the streamed log."""
    raw = {
        "data": {"interactions": str(source / "*.parquet"), "stream": True},
        "schema": json.loads(schema().model_dump_json()),
        "model": {"kind": "dcn"},
        "embedding": {"num_rows": table_rows},
        "training": {"epochs": 1, "batch_size": batch_size, "seed": SEED},
        "cache": str(cache),
    }
    return parse_config(raw, source="click_log")


def encode(config: ExperimentConfig) -> dict[str, Any]:
    """Encode the log into the cache; return the figures."""
    cpu, wall = time.process_time(), time.perf_counter()
    rows = open_rows(config, World())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    loader = rows.loader
    assert isinstance(loader, ClickLoader)
    return {
        "encode_rows_per_cpu_s": round(sum(rows.rows) / cpu),
        "encode_rows_per_s": round(sum(rows.rows) / wall),
        "bytes_on_disk": loader.log.num_bytes,
        "encode_peak_mib": peak_memory_mib(),
    }


class Watch:
    """Resident memory on the way through an epoch, and what the epoch took."""

    def __init__(self, name: str, num_steps: int, num_rows: int) -> None:
        self.name, self.num_steps, self.num_rows = name, num_steps, num_rows
        self.marks = {max(num_steps * share // 100, 1): share for share in (10, 50, 100)}
        self.figures: dict[str, float] = {f"{name}_start_mib": resident_mib()}
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def step(self, number: int) -> None:
        """Step `number`, counted from 1, is done."""
        if number in self.marks:
            self.figures[f"{self.name}_mib_at_{self.marks[number]}"] = resident_mib()
        if number == self.num_steps:
            cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
            self.figures[f"{self.name}_rows_per_cpu_s"] = round(self.num_rows / cpu)
            self.figures[f"{self.name}_rows_per_s"] = round(self.num_rows / wall)
            self.figures[f"{self.name}_peak_mib"] = peak_memory_mib()

    def __call__(self, event: Event) -> None:
        """Listen to the training loop."""
        if not isinstance(event, StepDone):
            return
        self.step(event.step)


def load(config: ExperimentConfig) -> dict[str, Any]:
    """Draw all training batches of an epoch; return the figures."""
    rows = open_rows(config, World())
    watch = Watch("load", rows.loader.num_steps, rows.rows[TRAIN])
    seen = 0
    for number, batch in enumerate(rows.loader.epoch(0), start=1):
        seen += len(batch)
        watch.step(number)
    assert seen == rows.rows[TRAIN]
    return watch.figures


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Train one epoch as `recsys train` does, without its test part; return the figures."""
    keep_freed_memory()
    world = World()
    rows = open_rows(config, world)
    plan = EmbeddingPlan.of(config.embedding, (rows.layout,))
    choice = pick_backend(
        config.embedding,
        plan,
        batch_size=config.training.batch_size,
        device=torch.device("cpu"),
    )
    table = config.embedding.model_copy(update={"backend": choice.backend})
    task = ranking_task(config.model_copy(update={"embedding": table}), rows, world)
    watch = Watch("train", task.num_steps, rows.rows[TRAIN])
    with tempfile.TemporaryDirectory(prefix="click_log-") as folder:
        state = fit(task, config.training, Checkpoints.of_run(Path(folder), world), (watch,))
    validation = state.history[-1]
    return {
        **watch.figures,
        "train_rows": rows.rows[TRAIN],
        "train_and_validate_peak_mib": peak_memory_mib(),
        "validation_rows": rows.rows[VALIDATION],
        "validation_logloss": validation["validation/log_loss"],
        "validation_auc": validation["validation/auc"],
        "table_lookups": rows.layout.num_lookups,
        "backend": choice.backend,
        "threads": torch.get_num_threads(),
    }


def resident_mib() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def measure(
    bench: Benchmark, folder: Path, rows: int, table_rows: int, batch_size: int
) -> dict[str, Any]:
    """Generate, encode, load and train; print a line each."""

    def in_own_process(work: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
        with bench.workers(1) as pool:
            return pool.submit(work, *arguments).result()

    log, cache = folder / f"log-{rows}", folder / f"encoded-{rows}"
    figures = in_own_process(generate, log, rows)
    loss, rate = figures["best_logloss"], figures["positive_rate"]
    bench.row("log", f"{rows:,} rows, {rate:.3f} positive, best log loss {loss:.4f}")
    shutil.rmtree(cache, ignore_errors=True)
    config = config_of(log, cache, table_rows, batch_size)
    figures |= in_own_process(encode, config)
    size = f"{figures['bytes_on_disk'] / rows:.0f} bytes a row"
    bench.row("encoding", f"{speeds(figures, 'encode')}, {size}")
    figures |= in_own_process(load, config)
    bench.row("an epoch without a model", f"{speeds(figures, 'load')}, {memory(figures, 'load')}")
    figures |= in_own_process(train, config)
    shutil.rmtree(cache)
    bench.row("an epoch of training", f"{speeds(figures, 'train')}, {memory(figures, 'train')}")
    bench.row(
        "  validation",
        f"log loss {figures['validation_logloss']:.4f} (best {loss:.4f}), "
        f"auc {figures['validation_auc']:.4f}, "
        f"peak with it {figures['train_and_validate_peak_mib']:,} MiB",
    )
    return figures


def speeds(figures: dict[str, Any], part: str) -> str:
    return (
        f"{figures[f'{part}_rows_per_cpu_s']:,} rows a CPU second, "
        f"{figures[f'{part}_rows_per_s']:,} a second, peak {figures[f'{part}_peak_mib']:,} MiB"
    )


def memory(figures: dict[str, Any], part: str) -> str:
    shown = ", ".join(f"{figures[f'{part}_mib_at_{share}']:,}" for share in (10, 50, 100))
    return f"resident at 10, 50, 100 %: {shown} MiB"


def main() -> None:
    bench = Benchmark("click_log", __doc__ or "")
    given = dict(pair.split("=", 1) for pair in bench.overrides)
    sizes = [int(s) for s in given.get("rows", bench.sized("5000000", "200000", "4000")).split(",")]
    table_rows = int(given.get("table_rows", bench.sized(1_000_000, 100_000, 1_000)))
    batch_size = bench.sized(BATCH_SIZE, BATCH_SIZE, 256)
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="click_log-") as temporary:
        for rows in sizes:
            folder = Path(given.get("folder", temporary))
            found[rows] = measure(bench, folder, rows, table_rows, batch_size)
    largest = found.pop(max(found))
    figures = {"batch_size": batch_size, "seed": SEED, "table_rows": table_rows, **largest}
    bench.finish({**figures, "smaller": [found[rows] for rows in sorted(found)]})


if __name__ == "__main__":
    sys.exit(main())
