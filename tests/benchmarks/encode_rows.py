"""Encoding speed: raw Arrow columns to hashes and scaled numbers, in rows a CPU second."""

import statistics
import sys
import time

import numpy as np
import pyarrow as pa
from _harness import Benchmark, peak_memory_mib

from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import hash_values
from recsys.features.schema import Schema


def schema_of(kind: str) -> Schema:
    feature = {"name": "value", "table": "interactions", "kind": kind}
    raw = {
        "interactions": {"user": "user", "item": "item"},
        "features": [feature, {"name": "item", "table": "items", "kind": "categorical"}],
    }
    return Schema.model_validate(raw, strict=False)


def rows_per_cpu_second(column: pa.Array, kind: str, repeats: int) -> float:
    """Encode one column as a feature, the median over `repeats`."""
    table = pa.table({"value": column})
    empty = pa.table({"item": pa.array([], pa.int64()), "user": pa.array([], pa.int64())})
    tables = {"items": empty, "users": empty, "interactions": table.slice(0, 1000)}
    encoder = FeatureEncoder.fit(schema_of(kind), tables, reference_time=0)  # type: ignore[arg-type]
    times = []
    for _ in range(repeats):
        started = time.process_time()
        encoder.encode("interactions", table)
        times.append(time.process_time() - started)
    return len(column) / statistics.median(times)


def main() -> None:
    bench = Benchmark("encode_rows", __doc__ or "")
    rows = bench.sized(2_000_000, 200_000, 2_000)
    rng = np.random.default_rng(0)
    ids = pa.array(rng.integers(0, 2**60, rows))
    distinct = pa.array(np.char.add("user-", np.arange(rows).astype(str)))
    repeated = distinct.take(pa.array(rng.integers(0, min(10_000, rows), rows)))
    figures: dict[str, float] = {}
    for name, column, kind in (
        ("integers", ids, "categorical"),
        ("distinct_text", distinct, "categorical"),
        ("repeated_text", repeated, "categorical"),
        ("dictionary", repeated.dictionary_encode(), "categorical"),
        ("numbers", pa.array(rng.normal(size=rows)), "numeric"),
    ):
        figures[name] = round(rows_per_cpu_second(column, kind, 5))
        bench.row(name.replace("_", " "), f"{figures[name] / 1e6:.1f} M rows a CPU second")
    started = time.process_time()
    hash_values(ids)
    figures["hash_integers"] = round(rows / (time.process_time() - started))
    bench.row("hash of integers alone", f"{figures['hash_integers'] / 1e6:.1f} M a CPU second")
    bench.finish({**figures, "rows": rows, "peak_memory_mib": peak_memory_mib(), "seed": 0})


if __name__ == "__main__":
    sys.exit(main())
