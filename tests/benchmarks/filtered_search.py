"""Filtered search over trained vectors: recall and queries per CPU second, by share that passes.

100,000 items of 64 numbers (a two-tower trained on Gowalla, widened by noise), random sets of
50, 5, 0.5 and 0.05 % of them, 1,000 queries together and 200 one by one, k = 10, one thread.

    engine exact      the engine over the exact index
    engine hnsw       the engine over a graph by faiss: it decides how
    faiss filter      faiss' own filter (`IDSelectorBitmap`) in the same graph, the same breadth
    faiss flat        faiss' exact search with its own filter
    after hnsw        the graph asked for 100, what does not pass left out of the answer
    after usearch     the same with usearch, whose Python interface has no filter

`recall` is against scoring all; `shortfalls` the share of lists with fewer than k items though k
pass. `queries_per_cpu_s` is of the 1,000, `one_per_cpu_s` of queries one by one.

    --set seed=1       other sets
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from _gowalla_vectors import catalogue
from _harness import Benchmark, peak_memory_mib, timed
from numpy.typing import NDArray
from torch import Tensor

from recsys.retrieval.among import Among
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.graph import GraphBackend, GraphIndex
from recsys.retrieval.index.registry import BACKENDS
from recsys.retrieval.topk import exact_topk

K, DEEP = 10, 100
SHARES = (0.5, 0.05, 0.005, 0.0005)
Search = Callable[[Tensor], NDArray[np.int64]]


def graph_of(kind: str, items: Tensor) -> GraphIndex:
    """Return an index of the kind over the items."""
    backend = BACKENDS[kind]
    assert isinstance(backend, GraphBackend)
    return backend.index_of(items, "biased_sphere")


def ways(
    items: Tensor, graphs: dict[str, GraphIndex], flat: Any, passes: Tensor
) -> dict[str, Search]:
    """Return each way to search among what passes; a call does all that a new filter costs."""
    mask = passes.numpy()

    def engine(index: Any) -> Search:
        return lambda queries: Among(index, items, passes).search(queries, K)[1].numpy()

    def library(queries: Tensor) -> NDArray[np.int64]:
        index = graphs["hnsw"]
        breadth = max(index.effort.breadth, 2 * K)
        graph: Any = index.graph
        return np.asarray(graph.search_passing(queries.numpy(), K, breadth, 1, mask)[1])

    def flat_library(queries: Tensor) -> NDArray[np.int64]:
        bits = np.packbits(mask, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        parameters = faiss.SearchParameters()
        parameters.sel = selector
        return np.asarray(flat.search(queries.numpy(), K, params=parameters)[1])

    def after(kind: str) -> Search:
        def search(queries: Tensor) -> NDArray[np.int64]:
            rows = graphs[kind].search(queries, min(DEEP, len(items)))[1]
            fails = (rows < 0) | ~passes[rows.clamp(min=0)]
            order = fails.int().argsort(dim=1, stable=True)[:, :K]
            return rows.masked_fill(fails, -1).gather(1, order).numpy()

        return search

    return {
        "engine exact": engine(ExactVectors(items)),
        "engine hnsw": engine(graphs["hnsw"]),
        "faiss filter": library,
        "faiss flat": flat_library,
        "after hnsw": after("hnsw"),
        "after usearch": after("usearch"),
    }


def measured(
    search: Search, queries: Tensor, alone: int, wanted: Tensor, repeats: int
) -> dict[str, float]:
    """Return how well and how fast one way answers."""
    rows = torch.from_numpy(search(queries))
    hits = ((rows.unsqueeze(2) == wanted.unsqueeze(1)) & (rows >= 0).unsqueeze(2)).any(2).sum()
    there = int((wanted >= 0).sum())
    short = ((rows >= 0).sum(1) < (wanted >= 0).sum(1)).float().mean()
    together = min(timed(lambda: search(queries)).cpu for _ in range(repeats))

    def one_by_one() -> None:
        for query in queries[:alone].split(1):
            search(query)

    each = min(timed(one_by_one).cpu for _ in range(repeats))
    return {
        "recall": round(int(hits) / there, 4),
        "shortfalls": round(float(short), 4),
        "queries_per_cpu_s": round(len(queries) / max(together, 1e-6)),
        "one_per_cpu_s": round(alone / max(each, 1e-6)),
    }


def main() -> None:
    bench = Benchmark("filtered_search", __doc__ or "")
    given = dict(one.split("=", 1) for one in bench.overrides)
    seed = int(given.pop("seed", "0"))
    bench.overrides = tuple(f"{key}={value}" for key, value in given.items())
    size, count, alone, repeats = bench.sized(
        (100_000, 1000, 200, 2), (50_000, 500, 50, 1), (2_000, 20, 3, 1)
    )
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        items, users = catalogue(bench, Path(folder), size)
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    queries = users[order[:count]].contiguous()
    graphs = {kind: graph_of(kind, items) for kind in ("hnsw", "usearch")}
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items.numpy())
    generator = torch.Generator().manual_seed(seed)
    runs: dict[str, dict[str, dict[str, float]]] = {}
    for share in SHARES:
        passes = torch.rand(size, generator=generator) < share
        passes[:K] = True
        own = passes.nonzero().flatten()
        places = exact_topk(queries, items[own], K)[1]
        wanted = own[places.clamp(min=0)].masked_fill(places < 0, -1)
        found = runs[f"{100 * share:g} %"] = {}
        for name, search in ways(items, graphs, flat, passes).items():
            cost = found[name] = measured(search, queries, alone, wanted, repeats)
            bench.row(f"{100 * share:g} %, {name}", str(cost))
    bench.finish(
        {
            "runs": runs,
            "items": size,
            "queries": len(queries),
            "k": K,
            "seed": seed,
            "width": items.shape[1],
            "peak_memory_mib": peak_memory_mib(),
        }
    )


if __name__ == "__main__":
    main()
