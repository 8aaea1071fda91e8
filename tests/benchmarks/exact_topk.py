"""Exact top-100 of 10,000 queries over 100,000 items, as a share of the bare product's rate.

The product is `torch.mm` of the same vectors in float32, in whichever of several cuts is the
fastest, writing every score and looking at none. `share_of_matmul` is its CPU time over that of
`exact_topk`; `faiss` is `IndexFlatIP` on the same vectors.
"""

import os

THREADS = (1, 2)
os.environ["OMP_NUM_THREADS"] = str(max(THREADS))

from collections.abc import Callable  # noqa: E402

import faiss  # noqa: E402
import torch  # noqa: E402
from _harness import Report, alternated, median, peak_memory_mb, run, timed  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from recsys.retrieval import screen  # noqa: E402
from recsys.retrieval.topk import exact_topk  # noqa: E402

NUM_ITEMS = 100_000
K = 100
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


def measure(quick: bool) -> Report:
    """Run the grid of widths, threads and worlds."""
    num_queries, repeats = (2_000, 3) if quick else (10_000, 7)
    grid = [(isotropic, 64, 1), (isotropic, 64, 2)]
    if not quick:
        grid += [(isotropic, 128, 1), (isotropic, 128, 2), (clustered, 64, 1), (clustered, 64, 2)]
    rows = []
    for world, dim, threads in grid:
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        items = world(NUM_ITEMS, dim, generator)
        queries = world(num_queries, dim, generator)
        before = peak_memory_mb()
        exact_topk(queries, items, K)
        extra = peak_memory_mb() - before
        cut = min(CUTS, key=lambda cut: timed(product(queries, items, cut)).cpu)
        calls = {
            "matmul": product(queries, items, cut),
            "topk": lambda queries=queries, items=items: exact_topk(queries, items, K),
            "faiss": flat_search(queries, items, threads),
        }
        times = {name: median(found) for name, found in alternated(calls, repeats).items()}
        matmul, topk, flat = times["matmul"], times["topk"], times["faiss"]
        rows.append(
            {
                "world": world.__name__,
                "dim": dim,
                "threads": threads,
                "matmul_cpu_s": matmul.cpu,
                "topk_cpu_s": topk.cpu,
                "share": matmul.cpu / topk.cpu,
                "share_wall": matmul.wall / topk.wall,
                "faiss_share": matmul.cpu / flat.cpu,
                "queries_per_cpu_s": round(num_queries / topk.cpu),
                "extra_mb": round(extra),
            }
        )
    figures = {
        "share_of_matmul": round(rows[0]["share"], 3),
        "share_of_matmul_2_threads": round(rows[1]["share"], 3),
        "share_of_matmul_2_threads_wall": round(rows[1]["share_wall"], 3),
        "faiss_share_of_matmul": round(rows[0]["faiss_share"], 3),
        "int8_screening": screen.bytes_pay(),
        "peak_memory_mb": round(peak_memory_mb()),
    }
    config = {"num_queries": num_queries, "num_items": NUM_ITEMS, "k": K, "repeats": repeats}
    return Report(figures, rows, config)


if __name__ == "__main__":
    run("exact_topk", measure)
