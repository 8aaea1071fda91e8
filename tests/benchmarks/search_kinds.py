"""Kinds of index over trained vectors: build, queries a CPU second, recall, memory, one thread.

Trains a two-tower on Gowalla, by lighter settings than the benchmark of that name, and searches its
items for its users, seen items kept. Gowalla has 40,981 items: more are copies of them, each moved
by noise of half its length and put back onto the sphere. Every kind makes the cheapest effort, by
its fixed cost, that reaches recall@10 `RECALL` on the queries. `vs_library` is the time of the
library called directly over that of the engine's index; codes are re-ranked there by faiss's
`IndexRefine`.

One size alone, all kinds: `--set items=1000000 --set dim=128`. Without, one graph is built, for the
smallest, and two sizes are of `exact` and `ivf` alone. Libraries that are not installed are
left out.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import torch
from _gowalla_vectors import trained_vectors
from _harness import Benchmark, alternated, peak_memory_mib
from _loaned import loaned
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.layers.geometry import Geometry, neighbours_of, points_of
from recsys.retrieval.index.approximate import ApproximateBackend
from recsys.retrieval.index.effort import cheapest
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.faiss_lists import ListsIndex
from recsys.retrieval.index.graph import GraphIndex
from recsys.retrieval.index.recall import Truth
from recsys.retrieval.index.registry import BACKENDS
from recsys.retrieval.index.scann_tree import ScannIndex

K = 10
RECALL = 0.95
QUERIES = 1_000
NOISE = 0.5
LISTS = ("scann", "ivf", "ivf_pq", "sq8", "rabitq")
SIZES = (
    (100_000, 64, ("hnsw", *LISTS)),
    (300_000, 64, ("ivf",)),
    (1_000_000, 64, ("ivf",)),
    (1_000_000, 128, LISTS),
)


def widened(items: Tensor, geometry: Geometry, count: int) -> Tensor:
    """Return `count` vectors: the items, and copies of them with noise."""
    generator = torch.Generator().manual_seed(0)
    width = points_of(items, geometry).shape[1]
    parts = [items]
    while len(parts) * len(items) < count:
        noise = torch.randn(len(items), width, generator=generator) * NOISE / width**0.5
        copies = neighbours_of(items, geometry, noise)
        copies[:, width:] = items[:, width:]  # what an item adds to its score
        parts.append(copies)
    return torch.cat(parts)[:count].contiguous()


def direct(index: Any, queries: Tensor) -> Callable[[], object]:
    """Return the same search by the library alone."""
    points, effort = queries.numpy(), index.effort
    if isinstance(index, GraphIndex):
        return lambda: index.graph.search(points, K, max(effort.breadth, 2 * K), 1)
    if isinstance(index, ScannIndex):
        return lambda: index.searcher.search_batched(points, K, K * effort.rerank, effort.breadth)
    assert isinstance(index, ListsIndex)
    parameters = index._parameters(effort.breadth)
    if index.cells.scanned_a_candidate is None:
        return lambda: index.lists.search(points, K, params=parameters)
    flat: Any = faiss.IndexFlatIP(points.shape[1])
    flat.add(index.vectors.numpy())
    refined: Any = faiss.IndexRefine(index.lists, flat)
    asked: Any = faiss.IndexRefineSearchParameters(
        k_factor=effort.rerank, base_index_params=parameters
    )
    return lambda: refined.search(points, K, params=asked)


def measured(
    benchmark: Benchmark, backend: ApproximateBackend, truth: Truth, geometry: Geometry
) -> dict[str, Any]:
    """Return what a kind costs to build and to ask at the cheapest effort."""
    started = time.process_time()
    index = backend.index_of(truth.vectors, geometry)
    built = time.process_time() - started
    index.effort, recall = cheapest(index, truth, RECALL)
    calls: dict[str, Callable[[], object]] = {
        "index": lambda: index.search(truth.queries, K),
        "library": direct(index, truth.queries),
    }
    times = alternated(calls, benchmark.sized(5, 2, 1))
    return {
        "build_cpu_s": round(built, 1),
        "queries_per_cpu_s": round(len(truth.queries) / times["index"].cpu),
        "recall_at_10": round(recall, 4),
        "recall_at_100": round(truth.recall(index, 100), 4),
        "memory_mib": round(index.held_bytes(index.effort) / 2**20, 1),
        "vs_library": round(times["library"].cpu / times["index"].cpu, 3),
        **index.effort.facts(index.ladder()),
    }


def compared(
    benchmark: Benchmark, kinds: Sequence[str], truth: Truth, geometry: Geometry
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the figures of each kind that is installed."""
    items = truth.vectors
    exact = ExactVectors(items)
    cpu = alternated({"exact": lambda: exact.search(truth.queries, K)}, 1)["exact"].cpu
    size = items.numel() * 4 / 2**20
    rate = round(len(truth.queries) / cpu)
    benchmark.row("  exact", f"{rate:,} a CPU second, {size:,.0f} MiB")
    yield "exact", {"queries_per_cpu_s": rate, "memory_mib": round(size, 1)}
    for kind in kinds:
        backend = BACKENDS[kind]
        if not isinstance(backend, ApproximateBackend):
            continue
        try:
            backend.require()
        except ConfigError:
            benchmark.row(f"  {kind}", "not installed")
            continue
        one = measured(benchmark, backend, truth, geometry)
        benchmark.row(
            f"  {kind}",
            f"built in {one['build_cpu_s']} CPU s, {one['queries_per_cpu_s']:,} a CPU second, "
            f"recall {one['recall_at_10']} / {one['recall_at_100']}, {one['memory_mib']:,} MiB, "
            f"{one['vs_library']} of the library's time",
        )
        yield kind, one


def sizes(benchmark: Benchmark) -> list[tuple[int, int, tuple[str, ...]]]:
    """Return items, width and kinds of each run."""
    asked = dict(one.split("=", 1) for one in benchmark.overrides)
    if asked:
        count, dim = int(asked.get("items", 100_000)), int(asked.get("dim", 64))
        return [(count, dim, tuple(BACKENDS))]
    installed = tuple(kind for kind in BACKENDS if kind not in ("hnswlib", "scann"))
    small = [(1_500, 16, installed)]
    return benchmark.sized(list(SIZES), list(SIZES[:1]), small)


def main() -> None:
    benchmark = Benchmark("search_kinds", __doc__ or "")
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    loaned("gowalla")
    figures: dict[str, Any] = {"recall": RECALL, "queries": QUERIES, "sizes": {}}
    trained: dict[int, tuple[Tensor, Tensor, Geometry]] = {}
    for count, dim, kinds in sizes(benchmark):
        if dim not in trained:
            with tempfile.TemporaryDirectory() as folder:
                own = (f"model.dim={dim}",)
                trained = {dim: trained_vectors(benchmark, Path(folder), own)}
        items, queries, geometry = trained[dim]
        benchmark.row(f"{count:,} items, width {dim}", geometry)
        truth = Truth(queries[:QUERIES].contiguous(), widened(items, geometry, count))
        found = figures["sizes"][f"{count} x {dim}"] = {}
        for kind, one in compared(benchmark, kinds, truth, geometry):
            found[kind] = one
            benchmark.keep({**figures, "peak_memory_mib": peak_memory_mib()})
    benchmark.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
