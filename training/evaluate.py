"""Honest evaluation: full ranking over the whole catalogue, baselines beside the model.

A ranker answers queries with its best item rows; every ranker gets the same queries, leaves
out the same seen items, and is judged by the same functions.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.dataset import Dataset
from features.queries import Queries
from recsys.batch import Jagged
from recsys.metrics.intervals import bootstrap_intervals
from recsys.metrics.ranking import (
    coverage_at_k,
    hit_rate_at_k,
    hits,
    mrr_at_k,
    ndcg_at_k,
    novelty_at_k,
    recall_at_k,
)
from recsys.retrieval.topk import topk_of_scores
from training.collapse import representation_metrics
from training.config import EvaluationConfig
from training.results import Evaluation, RankerResult

Ranker = Callable[[Queries, int], NDArray[np.int32]]
"""Queries and k to the best k item rows of each, (Q, k), -1 where the list is short."""

CHUNK = 1024
SLICE_K = 20
_PER_QUERY = {
    "recall": recall_at_k,
    "hit_rate": hit_rate_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
}
_HISTORY_SLICES = ((0, 0), (1, 4), (5, 19), (20, None))


def ranking_metrics(
    top: NDArray[np.integer] | Tensor, relevant: Jagged, ks: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    """Return metric@k of each query, name -> (Q,) float64, NaN where nothing is relevant.

    Args:
        top: (Q, K) item rows, best first, -1 where the list is short; K >= max(ks).
        relevant: Q rows of distinct item rows.
        ks: the cut-offs.
    """
    hit = hits(np.asarray(top), relevant.values.numpy(), relevant.offsets.numpy())
    num_relevant = relevant.lengths().numpy()
    return {
        f"{name}_at_{k}": metric(hit, num_relevant, k)
        for k in ks
        for name, metric in _PER_QUERY.items()
    }


def score_ranker(
    score: Callable[[Jagged, NDArray[np.int64]], NDArray[np.float32]],
    *,
    filter_seen: bool,
    queries_at_once: int = CHUNK,
) -> Ranker:
    """Return a ranker from a score matrix: score(history, user rows) -> (B, n_items) float32."""

    def rank(queries: Queries, k: int) -> NDArray[np.int32]:
        tops = []
        for rows in torch.arange(len(queries)).split(queries_at_once):
            seen = queries.seen.take(rows)
            scores = torch.from_numpy(score(seen, queries.users[rows.numpy()]))
            tops.append(topk_of_scores(scores, k, seen if filter_seen else None)[1])
        return torch.cat(tops).numpy().astype(np.int32)

    return rank


def evaluate(
    data: Dataset,
    queries: Queries,
    rankers: dict[str, Ranker],
    config: EvaluationConfig,
    *,
    protocol: dict[str, str],
    seed: int,
    item_vectors: Tensor | None = None,
    query_vectors: Tensor | None = None,
    temperature: float | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Evaluation:
    """Judge `rankers`, the model first, on the same queries.

    Args:
        data: catalogue and training counts.
        queries: who asks and what counts as a hit.
        rankers: name -> ranker.
        config: cut-offs, bootstrap samples.
        protocol: words about the split that go into the report.
        seed: of the bootstrap.
        item_vectors: (n_items, E), for the collapse alarm.
        query_vectors: (Q, E), for alignment.
        temperature: of the model's softmax, kept beside them.
        left_out: why a baseline is missing, by name.
    """
    largest = max(config.ks)
    results = {
        name: _judge(name, rank(queries, largest), data, queries, config, seed)
        for name, rank in rankers.items()
    }
    return Evaluation(
        protocol={
            **protocol,
            "queries": f"{len(queries):,} users",
            "catalogue": f"{data.num_items:,} items, all of them ranked",
            "seen items": "left out" if config.filter_seen else "kept",
        },
        ks=config.ks,
        query_users=queries.users.astype(np.int32),
        relevant_values=queries.relevant.values.numpy(),
        relevant_offsets=queries.relevant.offsets.numpy(),
        results=results,
        train_counts=data.train_counts,
        representation={}
        if item_vectors is None or query_vectors is None
        else representation_metrics(
            item_vectors, query_vectors, queries.relevant, temperature=temperature
        ),
        left_out=left_out or {},
    )


def slice_k(config: EvaluationConfig) -> int:
    """Return the cut-off of the slices' recall: 20 where it is computed, else the first."""
    return SLICE_K if SLICE_K in config.ks else config.ks[0]


def item_slices(train_counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Part the catalogue by training rows, name -> (n_items,) bool.

    Head, torso and tail each hold a third of the training rows, most popular items first; cold
    items have none.
    """
    order = np.argsort(-train_counts, kind="stable")
    before = np.cumsum(train_counts[order]) - train_counts[order]
    third = np.empty(len(order), np.int64)
    third[order] = np.minimum(before * 3 // max(int(train_counts.sum()), 1), 2)
    warm = train_counts > 0
    names = ("head", "torso", "tail")
    slices = {f"items: {name}": warm & (third == part) for part, name in enumerate(names)}
    return {**slices, "items: cold": ~warm}


def _judge(
    name: str,
    top: NDArray[np.int32],
    data: Dataset,
    queries: Queries,
    config: EvaluationConfig,
    seed: int,
) -> RankerResult:
    per_query = ranking_metrics(top, queries.relevant, config.ks)
    metrics = {metric: float(values.mean()) for metric, values in per_query.items()}
    for k in config.ks:
        metrics[f"coverage_at_{k}"] = coverage_at_k(top, data.num_items, k)
        metrics[f"novelty_at_{k}"] = novelty_at_k(top, data.train_counts, k)
    bounds = bootstrap_intervals(
        np.stack(list(per_query.values()), axis=1), samples=config.bootstrap_samples, seed=seed
    )
    intervals = {
        name: (float(low), float(high)) for name, (low, high) in zip(per_query, bounds, strict=True)
    }
    slices = {
        **_item_slices(top, data, queries, config),
        **_user_slices(per_query, queries, config),
    }
    return RankerResult(name, top, per_query, metrics, intervals, slices)


def _item_slices(
    top: NDArray[np.int32], data: Dataset, queries: Queries, config: EvaluationConfig
) -> dict[str, dict[str, float]]:
    """Recall of the relevant items of each slice, over the queries that have any."""
    values, offsets = queries.relevant.values.numpy(), queries.relevant.offsets.numpy()
    slices: dict[str, dict[str, float]] = {}
    k = slice_k(config)
    for name, members in item_slices(data.train_counts).items():
        inside = np.concatenate([[0], np.cumsum(members[values])])[offsets]
        relevant = Jagged(torch.from_numpy(values[members[values]]), torch.from_numpy(inside))
        recall = ranking_metrics(top, relevant, (k,))[f"recall_at_{k}"]
        asked = ~np.isnan(recall)
        if asked.any():
            mean = float(recall[asked].mean())
            slices[name] = {f"recall_at_{k}": mean, "queries": float(asked.sum())}
    return slices


def _user_slices(
    per_query: dict[str, NDArray[np.float64]], queries: Queries, config: EvaluationConfig
) -> dict[str, dict[str, float]]:
    """Recall of users by how many events they had before."""
    length = queries.seen.lengths().numpy()
    k = slice_k(config)
    slices: dict[str, dict[str, float]] = {}
    for low, high in _HISTORY_SLICES:
        members = (length >= low) & (
            length <= (high if high is not None else length.max(initial=0))
        )
        if members.any():
            words = f"{low}" if low == high else f"{low}-{high}" if high else f"{low}+"
            mean = float(per_query[f"recall_at_{k}"][members].mean())
            slices[f"users: {words} events"] = {
                f"recall_at_{k}": mean,
                "queries": float(members.sum()),
            }
    return slices
