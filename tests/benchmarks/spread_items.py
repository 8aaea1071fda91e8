"""Items moved apart after training (InvGC): does it find more, or other items?

Vectors of two trained models (`_trained_vectors`), items by inverse graph convolution
(`spread_methods/convolution.py`): kinds of messages, and how much is taken off for the items'
graph and for that of the queries that every other user asks before the validation row. Chosen by
NDCG@20 on the validation rows of the other users, told on their test rows, seen items left out.
`skewness` is that of how often each item is among a list's first 20, `coverage` the share of items
in any list, `gain` that over unmoved items with its 95 % interval over queries. `evenest`: of what
keeps 99 % of the validation NDCG, that with the least skewness on validation.

    --set vectors=FOLDER     keep the trained vectors there, or read them

Needs the data on loan (RECSYS_DATA).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from dataclasses import dataclass
from typing import Any

import torch
from _harness import Benchmark, peak_memory_mib
from _trained_vectors import NAMES, Part, Vectors, trained_vectors
from numpy.typing import NDArray
from spread_methods.convolution import Message, messages, skewness, spread
from torch import Tensor
from torch.nn import functional as F

from recsys.layers.geometry import points_of
from recsys.metrics.intervals import paired_difference
from recsys.metrics.ranking import coverage_at_k
from recsys.retrieval.topk import exact_topk
from recsys.training.evaluation.evaluate import ranking_metrics

K = 20
KINDS: dict[str, tuple[Message, int]] = {
    "all pairs": ("all", 0),
    "10 nearest": ("local", 10),
    "100 nearest": ("local", 100),
    "mean of 100 nearest": ("mean", 100),
}
RATES = (0.0, 0.03, 0.1, 0.3)
MOST_QUERIES = 3000
KEPT = 0.99


@dataclass(frozen=True)
class Judged:
    """metrics: name -> (Q,); skewness and coverage of all lists."""

    metrics: dict[str, NDArray[Any]]
    skewness: float
    coverage: float

    def figures(self) -> dict[str, float]:
        """Return the means, rounded."""
        means = {f"{name}_at_{K}": float(self.metrics[name].mean()) for name in ("recall", "ndcg")}
        own = {**means, "skewness": self.skewness, f"coverage_at_{K}": self.coverage}
        return {name: round(value, 4) for name, value in own.items()}


def judge(items: Tensor, part: Part) -> Judged:
    """Return what lists of `items` are like for some queries of the part."""
    rows = torch.arange(min(MOST_QUERIES, len(part.vectors)))
    top = exact_topk(part.vectors[rows], items, K, part.seen.take(rows))[1]
    found = ranking_metrics(top, part.relevant.take(rows), (K,))
    counts = torch.bincount(top[top >= 0], minlength=len(items))
    return Judged(
        {name: found[f"{name}_at_{K}"] for name in ("recall", "ndcg")},
        skewness(counts),
        coverage_at_k(top.numpy(), len(items), K),
    )


def spreads(vectors: Vectors) -> dict[str, Tensor]:
    """Return moved items by kind and rates."""
    items = F.normalize(points_of(vectors.items, vectors.geometry), dim=1)
    asked = vectors.validation.half(odd=False).vectors
    queries = F.normalize(points_of(asked, vectors.geometry), dim=1)
    found = {}
    for kind, (message, k) in KINDS.items():
        near = min(k, len(items) - 1, len(queries))
        around = (messages(items, items, message, near), messages(items, queries, message, near))
        for rates in ((g, q) for g in RATES for q in RATES if g or q):
            name = f"{kind}, items {rates[0]}, queries {rates[1]}"
            found[name] = spread(vectors.items, vectors.geometry, around, rates)
    return found


def measured(benchmark: Benchmark, vectors: Vectors) -> dict[str, Any]:
    """Choose on validation; return what it gives on test."""
    validation, test = (part.half(odd=True) for part in (vectors.validation, vectors.test))
    ways = spreads(vectors)
    judged = {name: judge(items, validation) for name, items in ways.items()}
    ndcg = {name: float(one.metrics["ndcg"].mean()) for name, one in judged.items()}
    plain = judge(vectors.items, validation)
    least = KEPT * float(plain.metrics["ndcg"].mean())
    kept = [name for name in ndcg if ndcg[name] >= least] or list(ndcg)
    chosen = {
        "best": max(ndcg, key=lambda name: ndcg[name]),
        "evenest": min(kept, key=lambda name: judged[name].skewness),
    }
    before = judge(vectors.items, test)
    figures: dict[str, Any] = {
        "items": len(vectors.items),
        "queries": len(before.metrics["ndcg"]),
        "tried": len(ways),
        "validation": {"unmoved": plain.figures()}
        | {name: judged[one].figures() for name, one in chosen.items()},
        "test": {"unmoved": before.figures()},
    }
    for name, way in chosen.items():
        after = judge(ways[way], test)
        gains = {}
        for metric, values in after.metrics.items():
            gain = paired_difference(values, before.metrics[metric])
            gains[f"{metric}_at_{K}"] = [round(one, 5) for one in (gain.mean, gain.low, gain.high)]
        figures["test"][name] = {"way": way, **after.figures(), "gain": gains}
    for name, one in figures["test"].items():
        benchmark.row(name, str(one))
    return figures


def main() -> None:
    benchmark = Benchmark("spread_items", __doc__ or "")
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for name in NAMES:
        benchmark.row(name, "")
        figures[name] = measured(benchmark, trained_vectors(benchmark, name))
    benchmark.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
