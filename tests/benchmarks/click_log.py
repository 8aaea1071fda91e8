"""A click log larger than memory: encode it, then read it shuffled; rows a CPU second, memory.

The log grows out of 10,000 rows of Criteo's (13 counts, 26 categories): rows are drawn again,
counts jittered, some categories replaced by fresh values with a Zipf tail, and the label drawn
by a planted rule, whose log loss `best_logloss` is what a model can reach at best.

    --set rows=50000000      rows of the log (default 5,000,000; --quick 200,000)
    --set folder=/big/disk   where log and encoded rows stay; a log of that size is not made again
                             (default: a temporary folder, deleted afterwards)
"""

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _harness import Benchmark, peak_memory_mib
from numpy.typing import NDArray

from features.click_loader import ClickLoader
from features.click_log import ClickLog, encode_click_log, load_click_log
from features.hashing import hash_values, splitmix64
from features.sources import Policies, Sources
from features.split import TRAIN, SplitConfig
from recsys.schema import Schema

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
    data = Path(os.environ.get("RECSYS_DATA", "../shared/data"))
    source = pq.read_table(data / "criteo-sample" / "criteo_10k.parquet").combine_chunks()
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


def encode(source: Path, folder: Path) -> dict[str, float]:
    """Encode the log into `folder`; return the figures."""
    cpu, wall = time.process_time(), time.perf_counter()
    sources = Sources(interactions=str(source / "*.parquet"), stream=True)
    log = encode_click_log(schema(), sources, Policies(), SplitConfig(), folder)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    rows = sum(log.counts)
    return {
        "encode_rows_per_cpu_s": round(rows / cpu),
        "encode_rows_per_s": round(rows / wall),
        "bytes_on_disk": log.num_bytes,
        "encode_peak_mib": peak_memory_mib(),
    }


def epoch_without_model(log: ClickLog) -> dict[str, float]:
    """Draw all training batches of an epoch; return the figures."""
    loader = ClickLoader(log, batch_size=BATCH_SIZE, seed=SEED)
    marks = {max(loader.num_steps * share // 100, 1): share for share in (10, 50, 100)}
    figures: dict[str, float] = {"start_mib": resident_mib()}
    cpu, wall = time.process_time(), time.perf_counter()
    seen = 0
    for step, batch in enumerate(loader.epoch(0), start=1):
        seen += len(batch)
        if step in marks:
            figures[f"load_mib_at_{marks[step]}"] = resident_mib()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert seen == log.num_rows(TRAIN)
    figures["load_rows_per_cpu_s"] = round(seen / cpu)
    figures["load_rows_per_s"] = round(seen / wall)
    figures["load_peak_mib"] = peak_memory_mib()
    return figures


def load(folder: Path) -> dict[str, float]:
    """Open the encoded log and run an epoch over it."""
    return epoch_without_model(load_click_log(folder))


def resident_mib() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def in_own_process(work: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Call `work` in a fresh process, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def measure(bench: Benchmark, folder: Path, rows: int) -> dict[str, Any]:
    """Generate, encode and load; print a line each."""
    truth = in_own_process(generate, folder / f"log-{rows}", rows)
    loss, rate = truth["best_logloss"], truth["positive_rate"]
    bench.row("log", f"{rows:,} rows, {rate:.3f} positive, best log loss {loss:.4f}")
    encoded = folder / f"encoded-{rows}"
    shutil.rmtree(encoded, ignore_errors=True)
    figures = in_own_process(encode, folder / f"log-{rows}", encoded)
    bench.row(
        "encoding",
        f"{figures['encode_rows_per_cpu_s']:,} rows a CPU second, "
        f"{figures['bytes_on_disk'] / rows:.0f} bytes a row, "
        f"peak {figures['encode_peak_mib']:,} MiB",
    )
    figures |= in_own_process(load, encoded)
    shown = ", ".join(f"{figures[f'load_mib_at_{share}']:,}" for share in (10, 50, 100))
    bench.row(
        "an epoch without a model",
        f"{figures['load_rows_per_cpu_s']:,} rows a CPU second, "
        f"MiB resident at 10, 50, 100 %: {shown}",
    )
    return {**truth, **figures}


def main() -> None:
    bench = Benchmark("click_log", __doc__ or "")
    given = dict(pair.split("=", 1) for pair in bench.overrides)
    rows = int(given.get("rows", 200_000 if bench.quick else 5_000_000))
    with tempfile.TemporaryDirectory(prefix="click_log-") as temporary:
        figures = measure(bench, Path(given.get("folder", temporary)), rows)
    bench.finish({**figures, "batch_size": BATCH_SIZE, "seed": SEED})


if __name__ == "__main__":
    sys.exit(main())
