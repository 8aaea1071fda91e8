"""Honest evaluation: full ranking over the whole catalogue, compared with baselines.

A ranker answers queries with its best item rows; every ranker gets the same queries, leaves
out the same seen items, and is evaluated by the same functions.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.distinct import distinct, is_among
from recsys.data.batch import Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import PART_NAMES, TEST
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
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.recommend import MEMORY_ROWS, best_items, gains_of
from recsys.retrieval.topk import topk_of_scores
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.collapse import representation_metrics
from recsys.training.evaluation.results import ColdItems, Evaluation, RankerResult
from recsys.training.evaluation.slices import only, slice_k, slice_recall

LOG = logging.getLogger(__name__)


class Ranker(Protocol):
    """Whatever can put the catalogue in order for a query."""

    def __call__(
        self, queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the best k item rows of each query, (Q, k), -1 where the list is short.

        Args:
            queries: those to answer.
            k: length of the lists; may exceed what there is to rank.
            among: ascending item rows, the only ones to rank; None: the whole catalogue.
        """


class ExtraRankers(Protocol):
    """More rankers to evaluate together with a model that retrieves (the built-in world's best)."""

    def __call__(
        self, data: Dataset, queries: Queries, /, *, filter_seen: bool
    ) -> dict[str, Ranker]:
        """Return them by name; `filter_seen`: whether they leave out what a query has seen."""


CHUNK = 1024
_PER_QUERY = {
    "recall": recall_at_k,
    "hit_rate": hit_rate_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
}


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
    score: Callable[[Queries], NDArray[np.float32]],
    *,
    filter_seen: bool,
    queries_at_once: int = CHUNK,
    ties: NDArray[np.int64] | None = None,
) -> Ranker:
    """Return a ranker from a matrix of scores.

    Args:
        score: (B queries) -> (B, n_items) float32.
        filter_seen: whether what a query has seen is left out.
        queries_at_once: most queries that are scored together.
        ties: (n_items,) all item rows in the order of equal scores; None: ascending.
    """

    def rank(
        queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        ranked = among
        if ties is not None:
            ranked = ties if among is None else ties[is_among(ties, among)]
        tops = []
        for rows in torch.arange(len(queries)).split(queries_at_once):
            asked = queries.take(rows)
            scores = torch.from_numpy(score(asked))
            if ranked is not None:
                scores = scores[:, torch.from_numpy(ranked)]
            hidden = _hidden(asked.seen, filter_seen, ranked)
            tops.append(_catalogue_rows(topk_of_scores(scores, k, hidden)[1], ranked))
        return torch.cat(tops).numpy().astype(np.int32)

    return rank


@dataclass(frozen=True)
class VectorRanker:
    """The ranker by inner products of query and item vectors.

    items: (n_items, E). vectors: (Q, E) or (Q, I, E), of the very queries that will be asked for.
    filter_seen: whether what a query has seen is left out. gain: (Q,) what the items of a query's
    history gain; None: nothing. memory: what adds to the scores by what followed the last items
    before.
    """

    items: Tensor
    vectors: Tensor
    filter_seen: bool
    gain: Tensor | None = None
    memory: PairMemory | None = None

    def __call__(
        self, queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the best k item rows; see `Ranker`."""
        return self.scored(queries, k, among)[1].numpy().astype(np.int32)

    def scored(
        self, queries: Queries, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return scores and item rows of the lists, (Q, k) each; -inf and -1 where short."""
        chosen = self.items if among is None else self.items[torch.from_numpy(among)]
        index = ExactVectors(chosen)
        at_once = max(len(queries), 1) if self.memory is None else MEMORY_ROWS
        tops = []
        for rows in torch.arange(len(queries)).split(at_once):
            own = None if self.gain is None else self.gain[rows]
            gains = gains_of(queries.history_items.take(rows), own, self.memory)
            placed = None if gains is None else _places(gains, among)
            hidden = _hidden(queries.seen.take(rows), self.filter_seen, among)
            found = best_items(index, chosen, self.vectors[rows], placed, k=k, exclude=hidden)
            tops.append((found[0], _catalogue_rows(found[1], among)))
        if not tops:
            return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64)
        scores, found_rows = zip(*tops, strict=True)
        return torch.cat(scores), torch.cat(found_rows)


def vector_ranker(
    items: Tensor,
    vectors: Tensor,
    *,
    filter_seen: bool,
    gain: Tensor | None = None,
    memory: PairMemory | None = None,
) -> VectorRanker:
    """Return the ranker by inner products of query and item vectors; see `VectorRanker`."""
    return VectorRanker(items, vectors, filter_seen, gain, memory)


def _hidden(seen: Jagged, filter_seen: bool, ranked: NDArray[np.int64] | None) -> Jagged | None:
    """Return what to leave out, as places in what is ranked."""
    return _places(seen, ranked) if filter_seen else None


def _places(items: Jagged, ranked: NDArray[np.int64] | None) -> Jagged:
    """Return item rows as places in what is ranked, without those that are not; weights stay."""
    if ranked is None:
        return items
    rows = items.values.numpy()
    place_of = np.full(max(int(ranked.max(initial=-1)), int(rows.max(initial=-1))) + 1, -1)
    place_of[ranked] = np.arange(len(ranked))
    return items.renamed(place_of)


def _catalogue_rows(top: Tensor, ranked: NDArray[np.int64] | None) -> Tensor:
    """Return places in what was ranked as item rows; -1 stays."""
    if ranked is None:
        return top
    return torch.where(top >= 0, torch.from_numpy(ranked)[top.clamp(min=0)], -1)


def evaluate(
    data: Dataset,
    queries: Queries,
    rankers: dict[str, Ranker],
    config: RetrievalEvaluationConfig,
    *,
    protocol: dict[str, str],
    seed: int,
    item_vectors: Tensor | None = None,
    query_vectors: Tensor | None = None,
    temperature: float | None = None,
    left_out: Mapping[str, str] | None = None,
    part: int = TEST,
    of_source: bool = False,
) -> Evaluation:
    """Evaluate `rankers`, the model first, on the same queries.

    Args:
        data: catalogue and training counts.
        queries: the users and their relevant items.
        rankers: name -> ranker.
        config: cut-offs, bootstrap samples.
        protocol: words about the split that go into the report.
        seed: of the bootstrap.
        item_vectors: (n_items, E), for the collapse alarm.
        query_vectors: (Q, E), for alignment.
        temperature: of the model's softmax, kept with them.
        left_out: why a baseline is missing, by name.
        part: that the queries are of.
        of_source: whether the model is a source of a pipeline, which asks in a way of its own.
    """
    results = {
        name: _evaluate(name, rank, data, queries, config, seed) for name, rank in rankers.items()
    }
    asked = f"{len(queries):,} users"
    if config.asked == "events":
        asked = f"{len(queries):,} events of {len(distinct(queries.users)):,} users"
    elif empty := _at_starts_of_sessions(queries, warns=not of_source):
        asked += f", {empty:,} at the start of a session, before whose first step nothing is known"
    return Evaluation(
        protocol={
            **protocol,
            "queries": asked,
            "catalogue": f"{data.num_items:,} items, all of them ranked",
            "seen items": "left out" if config.filter_seen else "kept",
        },
        ks=config.ks,
        query_users=queries.users.astype(np.int32),
        relevant_values=queries.relevant.values.numpy(),
        relevant_offsets=queries.relevant.offsets.numpy(),
        results=results,
        train_counts=data.train_counts,
        representation=_representation(item_vectors, query_vectors, queries, temperature),
        left_out=left_out or {},
        asked=config.asked,
        cold=_cold_items(data, queries),
        part=PART_NAMES[part],
    )


def _representation(
    items: Tensor | None, asked: Tensor | None, queries: Queries, temperature: float | None
) -> dict[str, float]:
    if items is None or asked is None:
        return {}
    return representation_metrics(items, asked, queries.relevant, temperature=temperature)


def _at_starts_of_sessions(queries: Queries, *, warns: bool) -> int:
    """Return how many users with earlier events are asked after none of them.

    warns: whether it is warned of where these are most.
    """
    known = queries.seen.lengths() > 0
    empty = int((known & (queries.history_items.lengths() == 0)).sum())
    if warns and empty > len(queries) / 2:
        LOG.warning(
            f"{empty:,} of {len(queries):,} users are asked at the start of a session, with an "
            "empty history, where scoring answers after the last session of the log: "
            "evaluation.queries: events asks after each step of a session"
        )
    return empty


def _evaluate(
    name: str,
    rank: Ranker,
    data: Dataset,
    queries: Queries,
    config: RetrievalEvaluationConfig,
    seed: int,
) -> RankerResult:
    top = rank(queries, max(config.ks))
    per_query = ranking_metrics(top, queries.relevant, config.ks)
    metrics = {metric: float(values.mean()) for metric, values in per_query.items()}
    recall = f"recall_at_{slice_k(config)}"
    of_slices = slice_recall(top, per_query, data.train_counts, queries, config)
    slices = {
        name: {recall: float(np.nanmean(values)), "queries": float((~np.isnan(values)).sum())}
        for name, values in of_slices.items()
    }
    for k in config.ks:
        metrics[f"coverage_at_{k}"] = coverage_at_k(top, data.num_items, k)
        metrics[f"novelty_at_{k}"] = novelty_at_k(top, data.train_counts, k)
    cold = _cold_recall(rank, top, data, queries, config)
    metrics |= {metric: float(np.nanmean(values)) for metric, values in cold.items()}
    per_query |= cold
    bounds = bootstrap_intervals(
        np.stack(list(per_query.values()), axis=1), samples=config.bootstrap_samples, seed=seed
    )
    intervals = {
        name: (float(low), float(high)) for name, (low, high) in zip(per_query, bounds, strict=True)
    }
    return RankerResult(name, top, per_query, metrics, intervals, slices)


def _cold_items(data: Dataset, queries: Queries) -> ColdItems | None:
    """Return the numbers of cold items and of queries with one; None without such a query."""
    num_queries = int((only(queries.relevant, data.cold).lengths() > 0).sum())
    if not num_queries:
        return None
    trained = bool(data.train_counts[data.cold].any())
    return ColdItems(int(data.cold.sum()), num_queries, trained)


def _cold_recall(
    rank: Ranker,
    top: NDArray[np.int32],
    data: Dataset,
    queries: Queries,
    config: RetrievalEvaluationConfig,
) -> dict[str, NDArray[np.float64]]:
    """Recall of the cold items: in the whole catalogue, and with no others to rank."""
    if _cold_items(data, queries) is None:
        return {}
    relevant = only(queries.relevant, data.cold)
    alone = rank(queries, max(config.ks), among=np.flatnonzero(data.cold))
    found: dict[str, NDArray[np.float64]] = {}
    for prefix, lists in (("cold", top), ("cold_alone", alone)):
        recall = ranking_metrics(lists, relevant, config.ks)
        found |= {f"{prefix}_recall_at_{k}": recall[f"recall_at_{k}"] for k in config.ks}
    return found
