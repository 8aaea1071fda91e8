"""Approximate indexes over trained vectors: queries per CPU second at a recall, by library.

Trains a two-tower on Gowalla at width 64, by lighter settings than the benchmark of that name, and
searches its 40,981 items for its users, seen items kept. Every graph of `recsys.retrieval.index`
is built with one thread and the same links and breadths. `queries_per_cpu_s` is at the
first breadth whose recall@10 against exact search is `RECALL`; `vs_library` is the time of the
library called directly over that of the engine's index, which orders ties and completes lists
besides.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from _gowalla_vectors import trained_vectors
from _harness import Benchmark, alternated, peak_memory_mib
from _loaned import loaned
from torch import Tensor

from recsys.layers.geometry import Geometry
from recsys.retrieval.index.effort import Effort
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.graph import GraphBackend
from recsys.retrieval.index.recall import recall_against_exact
from recsys.retrieval.index.registry import BACKENDS

K = 10
RECALL = 0.95
BREADTHS = (10, 16, 32, 64, 128, 256, 512)


def measured(
    benchmark: Benchmark, backend: GraphBackend, items: Tensor, queries: Tensor, geometry: Geometry
) -> dict[str, Any]:
    """Return what the backend costs to build and to ask."""
    started = time.process_time()
    index = backend.index_of(items, geometry)
    found: dict[str, Any] = {
        "build_cpu_s": round(time.process_time() - started, 2),
        "mib": round(len(index.graph.to_bytes()) / 2**20, 1),
    }
    points = queries.numpy()
    for at in BREADTHS:
        index.effort = Effort(at)
        recall = recall_against_exact(index, queries, items, K)
        breadth = max(at, 2 * K)
        calls = {
            "index": lambda: index.search(queries, K),
            "library": lambda breadth=breadth: index.graph.search(points, K, breadth, 1),
        }
        times = alternated(calls, benchmark.sized(3, 2, 1))
        rate = len(queries) / times["index"].cpu
        name = backend.library.name
        benchmark.row(f"{name}, breadth {at}", f"recall@{K} {recall:.4f}, {rate:,.0f} a CPU second")
        if recall >= RECALL or at == BREADTHS[-1]:
            share = times["library"].cpu / times["index"].cpu
            found |= {"recall": round(recall, 4), "breadth": at}
            found |= {"queries_per_cpu_s": round(rate), "vs_library": round(share, 3)}
            return found
    raise AssertionError


def main() -> None:
    benchmark = Benchmark("ann_export", __doc__ or "")
    torch.set_num_threads(1)
    loaned("gowalla")
    with tempfile.TemporaryDirectory() as folder:
        items, queries, geometry = trained_vectors(benchmark, Path(folder), benchmark.overrides)
    figures: dict[str, Any] = {
        "items": len(items),
        "width": items.shape[1],
        "queries": len(queries),
    }
    exact = ExactVectors(items)
    cpu = alternated({"exact": lambda: exact.search(queries, K)}, 1)["exact"].cpu
    figures["exact_queries_per_cpu_s"] = round(len(queries) / cpu)
    benchmark.row("exact", f"{figures['exact_queries_per_cpu_s']:,} a CPU second")
    for kind, backend in BACKENDS.items():
        if isinstance(backend, GraphBackend) and find_spec(backend.library.module):
            figures[kind] = measured(benchmark, backend, items, queries, geometry)
            cost = figures[kind]
            benchmark.row(f"{backend.library.name}: built", f"{cost['build_cpu_s']} CPU s")
    benchmark.finish({**figures, "recall": RECALL, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
