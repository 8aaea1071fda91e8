"""Shorter item vectors: what they lose, by method and width, and what they save at a million items.

Vectors of two trained models (`_trained_vectors`): a two-tower on MovieLens-1M and a session model
on Amazon Sports. Matrices are learnt from the queries that every other user asks before the
validation row, and measured on those that the other users ask before the test row, against exact
search by whole vectors, seen items kept: `error`, the mean squared error of the products over
their own mean square, the items' mean taken off; recall@10 and @100 when the first 20 to 200 items
of short vectors are scored by whole ones. `gain`: recall@10 at 50 candidates, closed form over PCA,
with its 95 % interval over queries. `from_128`: the closed form learnt from 128 queries, as many
as a bundle's probe leaves an export.

`million`: the items of Sports, copied with noise (0.6 of their spread in each of 128 directions)
and turned into 128 numbers; queries turned alike, without noise. Searched by faiss's IVF and
exactly, whole and short, with one thread. 20, 50 and 100 candidates are scored, for each of them
the fewest lists of `PROBES` opened that reach recall@10 `RECALL`, and the quickest of the three
is told; `search_mib` is what a search reads through, `scored_mib` what candidates are scored by.

    --set vectors=FOLDER     keep the trained vectors there, or read them
    --set million=false      without a million items

`--save` draws docs/short_vectors.png. Needs the data on loan (RECSYS_DATA).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from _harness import Benchmark, alternated, peak_memory_mib
from _short_picture import draw
from _trained_vectors import NAMES, Vectors, trained_vectors
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.metrics.intervals import paired_difference
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.index.reduced import DEPTHS, Reduced
from recsys.retrieval.reduction import (
    Reduction,
    frank_wolfe,
    principal,
    reduction_of,
    shared,
    sphered,
)
from recsys.retrieval.topk import exact_topk

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "short_vectors.png"
Learn = Callable[[Tensor, Tensor, int], Reduction]
WAYS: dict[str, Learn] = {
    "pca": partial(reduction_of, principal),
    "leanvec-id": partial(reduction_of, principal, centred=False),
    "leanvec-shared": partial(reduction_of, shared),
    "leanvec-fw": partial(reduction_of, frank_wolfe),
    "leanvec": partial(reduction_of, sphered),
}
WIDTHS, DEEP, GAIN_AT = (8, 16, 32), (20, 50, 100, 200), 50
MOST_QUERIES, FEW = 3000, 128
RECALL, WIDE, NOISE = 0.95, 128, 0.6
PROBES = (4, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128)


def curves_of(benchmark: Benchmark, vectors: Vectors) -> dict[str, Any]:
    """Return errors and recalls by width and way."""
    items = vectors.items
    learnt_from = vectors.validation.half(odd=False).vectors
    queries = vectors.test.half(odd=True).vectors[:MOST_QUERIES]
    wanted = exact_topk(queries, items, 100)[1]
    found: dict[str, Any] = {
        "items": len(items),
        "whole_dim": items.shape[1],
        "queries": len(queries),
        "learnt_from": len(learnt_from),
        "widths": {},
    }
    few = learnt_from[torch.randperm(len(learnt_from), generator=torch.Generator().manual_seed(0))]
    for width in WIDTHS if not benchmark.smoke else (4, 8):
        ways = {way: learn(items, learnt_from, width) for way, learn in WAYS.items()}
        ways["from_128"] = WAYS["leanvec"](items, few[:FEW], width)
        judged = {way: judge(one, items, queries, wanted) for way, one in ways.items()}
        both = (judged[way][1] for way in ("leanvec", "pca"))
        gain = paired_difference(*both)
        own = {way: figures for way, (figures, _) in judged.items()}
        own["gain"] = [round(one, 4) for one in (gain.mean, gain.low, gain.high)]
        found["widths"][str(width)] = own
        for way, (figures, _) in judged.items():
            cells = ", ".join(f"{depth}: {one}" for depth, one in figures["recall_at_10"].items())
            benchmark.row(f"{width} by {way}", f"error {figures['error']}, recall@10 {cells}")
    return found


def judge(
    reduction: Reduction, items: Tensor, queries: Tensor, wanted: Tensor
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return error and recalls, and recall@10 at `GAIN_AT` candidates of each query."""
    short, asked = reduction.of_items(items), reduction.of_queries(queries).contiguous()
    exact = queries @ (items - items.mean(0)).T
    estimated = asked @ (short - short.mean(0)).T
    error = float((exact - estimated).square().mean() / exact.square().mean())
    top = exact_topk(asked, short, max(DEEP))[1]
    recalls: dict[str, Any] = {"error": round(error, 5)}
    at_gain = np.zeros(0)
    for k in (10, 100):
        there = wanted[:, :k].unsqueeze(2) == top.unsqueeze(1)
        recalls[f"recall_at_{k}"] = {}
        for depth in (one for one in DEEP if one >= k):
            share = there[:, :, :depth].any(2).double().mean(1).numpy()
            recalls[f"recall_at_{k}"][str(depth)] = round(float(share.mean()), 4)
            if (k, depth) == (10, GAIN_AT):
                at_gain = share
    return recalls, at_gain


class Ivf:
    """IVF-Flat by faiss over vectors (n, E), for queries without exclusions; see `Index`.

    Lists are of the nearest centroid, and those of the largest products with a query are opened:
    lists that are filled by products as well want twice as many opened.
    """

    def __init__(self, vectors: Tensor, lists: int) -> None:
        self.vectors = vectors
        started = time.process_time()
        dim = vectors.shape[1]
        self._nearest, self._largest = faiss.IndexFlatL2(dim), faiss.IndexFlatIP(dim)
        self.index = faiss.IndexIVFFlat(self._nearest, dim, lists, faiss.METRIC_L2)
        self.index.cp.max_points_per_centroid = 100
        self.index.train(vectors.numpy())
        self.index.add(vectors.numpy())
        self._largest.add(self._nearest.reconstruct_n(0, lists))
        self.index.quantizer, self.index.metric_type = self._largest, faiss.METRIC_INNER_PRODUCT
        self.build_cpu_s = round(time.process_time() - started, 1)

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best."""
        assert exclude is None
        scores, rows = self.index.search(queries.numpy(), k)
        return torch.from_numpy(scores), torch.from_numpy(rows)


def widened(vectors: Vectors, num_items: int, num_queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return items (n, 128), queries to learn from and queries to ask, of the models' spread."""
    generator = torch.Generator().manual_seed(0)
    base = vectors.items
    width = base.shape[1]
    turn = torch.linalg.qr(torch.randn(WIDE, width, generator=generator))[0].T
    copies = torch.randint(0, len(base), (num_items,), generator=generator)
    items = base[copies] @ turn
    spread = float((base - base.mean(0)).square().sum(1).mean().sqrt())
    items += torch.randn(num_items, WIDE, generator=generator) * (NOISE * spread / WIDE**0.5)
    learnt_from = vectors.validation.half(odd=False).vectors @ turn
    asked = vectors.test.half(odd=True).vectors[:num_queries] @ turn
    return items.contiguous(), learnt_from.contiguous(), asked.contiguous()


def million(benchmark: Benchmark, vectors: Vectors) -> dict[str, Any]:
    """Return speed and memory, whole and short, by IVF and exactly."""
    size = benchmark.sized(1_000_000, 100_000, 2_000)
    lists = benchmark.sized(1024, 256, 16)
    items, learnt_from, queries = widened(vectors, size, benchmark.sized(500, 500, 20))
    wanted = exact_topk(queries, items, 10)[1]
    figures: dict[str, Any] = {"items": size, "dim": WIDE, "queries": len(queries), "lists": lists}
    for dim in (WIDE, 64, 32):
        reduction = None if dim == WIDE else reduction_of(sphered, items, learnt_from, dim)
        short = items if reduction is None else reduction.of_items(items)
        for kind in ("ivf", "exact"):
            ivf = Ivf(short, lists) if kind == "ivf" else None
            inner: Index = ExactVectors(short) if ivf is None else ivf
            tried = []
            for depth in DEPTHS[:3] if reduction is not None else (0,):
                index = inner if reduction is None else Reduced(inner, reduction, items, depth)
                found = widened_search(index, ivf, queries, wanted)
                tried.append({"candidates": depth, **found} if depth else found)
            enough = [one for one in tried if one["recall_at_10"] >= RECALL]
            found = max(enough or tried, key=lambda one: float(one["queries_per_cpu_s"]))
            found["search_mib"] = round(short.numel() * 4 / 2**20)
            found["scored_mib"] = 0 if reduction is None else round(items.numel() * 4 / 2**20)
            found |= {} if ivf is None else {"build_cpu_s": ivf.build_cpu_s}
            figures[f"{kind}, {dim}"] = found
            benchmark.row(f"{kind}, {dim} of {WIDE}", str(found))
    return figures


def widened_search(
    index: Index, ivf: Ivf | None, queries: Tensor, wanted: Tensor
) -> dict[str, float]:
    """Open more lists until recall@10 is enough; return how many, how good and how quick."""
    opened, recall = 0, 0.0
    for opened in PROBES if ivf is not None else (0,):
        if ivf is not None:
            ivf.index.nprobe = opened
        rows = index.search(queries, 10)[1]
        recall = float((wanted.unsqueeze(2) == rows.unsqueeze(1)).any(2).float().mean())
        if recall >= RECALL:
            break
    cpu = alternated({"search": lambda: index.search(queries, 10)}, 2)["search"].cpu
    found = {"recall_at_10": round(recall, 4), "queries_per_cpu_s": round(len(queries) / cpu)}
    return found | ({"lists_opened": opened} if ivf is not None else {})


def main() -> None:
    benchmark = Benchmark("short_vectors", __doc__ or "")
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    figures: dict[str, Any] = {}
    for name in NAMES:
        benchmark.row(name, "")
        vectors = trained_vectors(benchmark, name)
        figures[name] = curves_of(benchmark, vectors)
    if "million=false" not in benchmark.overrides:
        figures["million"] = million(benchmark, vectors)
    if benchmark.save:
        draw({name: figures[name] for name in NAMES}, PICTURE)
    benchmark.finish({**figures, "recall": RECALL, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
