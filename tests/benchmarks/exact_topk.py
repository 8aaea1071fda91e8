"""Exact top-100 of 10,000 queries over 100,000 items, as a share of the bare product's rate.

The product is `torch.mm` of the same vectors in float32, in whichever of several cuts is the
fastest, writing every score and looking at none. `share_of_matmul` is its CPU time over that of
`exact_topk`; `faiss` is `IndexFlatIP` on the same vectors.

`trained` searches vectors of a two-tower (`_gowalla_vectors`) on one thread, for 10 and for 100
items, together and for 1, 2 and 16 queries at a time; `kept` is of items that are prepared once, as
an index keeps them. Milliseconds are of the processor, the least of several.
"""

import os

THREADS = (1, 2)
os.environ["OMP_NUM_THREADS"] = str(max(THREADS))

import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import faiss  # noqa: E402
import torch  # noqa: E402
from _gowalla_vectors import catalogue, widened  # noqa: E402
from _harness import Benchmark, alternated, peak_memory_mib, timed  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from recsys.retrieval import screen  # noqa: E402
from recsys.retrieval.prepared import Prepared  # noqa: E402
from recsys.retrieval.topk import exact_topk  # noqa: E402

NUM_ITEMS = 100_000
K = 100
SEED = 0
World = Callable[[int, int, torch.Generator], Tensor]
CUTS = ((256, 1024), (512, 1024), (1024, 2048), (256, NUM_ITEMS))
"""Queries and items multiplied at a time."""


def isotropic(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Unit vectors in every direction alike: no structure to profit from."""
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)


def clustered(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Unit vectors around 200 centres of falling weight, off the origin, of unlike widths."""
    centres = torch.randn(200, dim, generator=torch.Generator().manual_seed(7)) + 0.5
    popularity = 1 / torch.arange(1, 201)
    chosen = torch.multinomial(popularity, count, replacement=True, generator=generator)
    widths = torch.linspace(1.5, 0.2, dim)
    noise = torch.randn(count, dim, generator=generator) * widths
    return F.normalize(centres[chosen] + noise, dim=1)


def product(queries: Tensor, items: Tensor, cut: tuple[int, int]) -> Callable[[], None]:
    """Return a call that computes every score, `cut` at a time, into the same memory."""
    buffer = torch.empty(cut[0] * cut[1])

    def call() -> None:
        for part in queries.split(cut[0]):
            for tile in items.split(cut[1]):
                out = buffer[: len(part) * len(tile)].view(len(part), len(tile))
                torch.mm(part, tile.T, out=out)

    return call


def flat_search(queries: Tensor, items: Tensor, threads: int) -> Callable[[], None]:
    """Return a call of faiss' exact search."""
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items.numpy())

    def call() -> None:
        faiss.omp_set_num_threads(threads)
        index.search(queries.numpy(), K)

    return call


def measure(
    world: World, dim: int, threads: int, sizes: tuple[int, int], repeats: int
) -> dict[str, float]:
    """Time product, top-k and faiss in turn on one kind of data."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(SEED)
    num_queries, num_items = sizes
    items = world(num_items, dim, generator)
    queries = world(num_queries, dim, generator)
    before = peak_memory_mib()
    exact_topk(queries, items, K)
    extra = peak_memory_mib() - before
    cut = min(CUTS, key=lambda cut: timed(product(queries, items, cut)).cpu)
    calls: dict[str, Callable[[], object]] = {
        "matmul": product(queries, items, cut),
        "topk": lambda: exact_topk(queries, items, K),
    }
    times = alternated(calls, repeats)
    matmul, topk = times["matmul"], times["topk"]
    flat = alternated({"faiss": flat_search(queries, items, threads)}, 1)["faiss"]
    return {
        "share": round(matmul.cpu / topk.cpu, 3),
        "share_wall": round(matmul.wall / topk.wall, 3),
        "faiss_share": round(matmul.cpu / flat.cpu, 3),
        "matmul_cpu_s": round(matmul.cpu, 3),
        "topk_cpu_s": round(topk.cpu, 3),
        "queries_per_cpu_s": round(num_queries / topk.cpu),
        "extra_mib": extra,
    }


def least(call: Callable[[], object], repeats: int) -> float:
    """Return the least CPU milliseconds of a call."""
    return round(1000 * min(timed(call).cpu for _ in range(repeats)), 3)


def few_queries(items: Tensor, queries: Tensor, k: int, repeats: int) -> dict[str, float]:
    """Time 1, 2 and 16 queries: as they come, of kept items, and by faiss' exact search."""
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items.numpy())
    known = Prepared(items)
    known.largest()
    found = {}
    for count in (1, 2, 16):
        few = queries[:count].contiguous()
        calls: dict[str, Callable[[Tensor], object]] = {
            "ms": lambda few: exact_topk(few, items, k),
            "kept_ms": lambda few: exact_topk(few, known, k),
            "faiss_ms": lambda few: flat.search(few.numpy(), k),
        }
        for name, call in calls.items():
            found[f"{count}_{name}"] = least(partial(call, few), repeats)
    return found


def trained(bench: Benchmark, sizes: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Time searches of trained vectors, and faiss' exact search beside them."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        own, queries = catalogue(bench, Path(folder), sizes[0])
    figures: dict[str, dict[str, float]] = {}
    for size in sizes:
        items = own if size == len(own) else widened(own, size)
        for k in (10, 100):
            found = few_queries(items, queries, k, bench.sized(15, 5, 1))
            if size == sizes[0]:
                call = partial(exact_topk, queries, items, k)
                together = least(call, bench.sized(5, 2, 1))
                found["queries_per_cpu_s"] = round(1000 * len(queries) / max(together, 1e-3))
            figures[f"{size} items, k {k}"] = found
            bench.row(f"trained, {size} items, k {k}", str(found))
    return figures


def main() -> None:
    bench = Benchmark("exact_topk", __doc__ or "")
    num_queries, num_items, repeats = bench.sized(
        (10_000, NUM_ITEMS, 9), (2_000, NUM_ITEMS, 5), (50, 2_000, 1)
    )
    grid: list[tuple[World, int, int]] = [(isotropic, 64, 1), (isotropic, 64, 2)]
    if not bench.quick:
        grid += [(isotropic, 128, 1), (isotropic, 128, 2), (clustered, 64, 1), (clustered, 64, 2)]
    runs = {}
    for world, dim, threads in grid:
        name = f"{world.__name__}_{dim}_{threads}_threads"
        found = runs[name] = measure(world, dim, threads, (num_queries, num_items), repeats)
        bench.row(
            name.replace("_", " "),
            f"{found['share']:.2f} of the product ({found['share_wall']:.2f} by the clock); "
            f"faiss {found['faiss_share']:.2f}; {found['queries_per_cpu_s']} queries a CPU second",
        )
    of_trained = trained(bench, bench.sized((NUM_ITEMS, 1_000_000), (NUM_ITEMS,), (2_000,)))
    bench.finish(
        {
            "trained": of_trained,
            "share_of_matmul": runs["isotropic_64_1_threads"]["share"],
            "runs": runs,
            "num_queries": num_queries,
            "num_items": num_items,
            "k": K,
            "seed": SEED,
            "repeats": repeats,
            "int8_screening": screen.bytes_pay(),
            "peak_memory_mib": peak_memory_mib(),
        }
    )


if __name__ == "__main__":
    main()
