"""Where relevance ends in the lists of a model that retrieves, found on the validation queries."""

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.relevance import ANCHORS, Relevance, crowds_of
from recsys.features.bundle.files import read_relevance
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import VALIDATION
from recsys.metrics.intervals import Difference, paired_difference
from recsys.metrics.ranking import hits
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.retrieval.memory import PairMemory
from recsys.training.config.retrieval import RelevanceConfig
from recsys.training.evaluation.cut_lists import (
    LEAST_HITS,
    Floats,
    Kept,
    ScoredLists,
    threshold_of_precision,
    threshold_of_recall,
)
from recsys.training.evaluation.evaluate import VectorRanker, vector_ranker
from recsys.training.families.retrieval.reading import RetrievalData
from recsys.training.families.retrieval.relevance_map import fit_map

LOG = logging.getLogger(__name__)
_FOLDS = 5


@dataclass(frozen=True)
class FittedRelevance:
    """Where relevance ends, or None where that could not be found, and what to say of it."""

    relevance: Relevance | None
    words: str


def fit_relevance(
    reading: RetrievalData,
    model: RetrievalModel,
    memory: PairMemory | None,
    chosen: ModelBundle | None = None,
) -> FittedRelevance | None:
    """Fit what `relevance` asks for on the validation queries; None: it asks for nothing.

    chosen: the model whose training chose the settings, from which it is taken over.
    """
    config = reading.config.relevance
    if config is None:
        return None
    if chosen is not None:
        found = read_relevance(chosen.bundle)
        if found is None:
            return _left_out(f"{chosen.bundle.path}, whose settings these are, has none")
        return FittedRelevance(found, f"{found.words}; of the run that chose the settings")
    queries = reading.queries(VALIDATION, reading.config.training.max_validation_queries)
    ranker = _ranker(reading, model, memory, queries)
    num_items, temperature = reading.data.num_items, float(model.temperature.detach())
    lists = scored_lists(ranker, queries, min(config.k, num_items), temperature)
    count = int(lists.hit.sum())
    if count < LEAST_HITS:
        return _left_out(
            f"the lists of {len(lists):,} validation queries hold {count:,} hits, and {LEAST_HITS} "
            "are needed"
        )
    fitted = find_end(lists, config, reading.config.training.seed)
    found = fitted.relevance
    if found is None or not found.crowd:
        return fitted
    anchored = replace(found, sharpness=1 / temperature, anchors=min(ANCHORS, num_items))
    return replace(fitted, relevance=anchored)


def scored_lists(ranker: VectorRanker, queries: Queries, k: int, temperature: float) -> ScoredLists:
    """Return the lists of k items that a model of that temperature gives to queries."""
    scores, rows = ranker.scored(queries, k)
    relevant = queries.relevant
    return ScoredLists(
        scores=scores.numpy(),
        hit=hits(rows.numpy(), relevant.values.numpy(), relevant.offsets.numpy()),
        crowds=crowds_of(ranker.vectors, ranker.items, 1 / temperature),
        num_steps=queries.history_items.lengths().numpy(),
        num_seen=queries.seen.lengths().numpy(),
        num_relevant=relevant.lengths().numpy(),
    )


def _ranker(
    reading: RetrievalData, model: RetrievalModel, memory: PairMemory | None, queries: Queries
) -> VectorRanker:
    items = catalogue_vectors(model, reading.data.items)
    vectors, gain = model.without_gain(query_vectors(model, queries.block, items, queries.history))
    filter_seen = reading.config.evaluation.filter_seen
    return vector_ranker(items, vectors, filter_seen=filter_seen, gain=gain, memory=memory)


def _left_out(why: str) -> FittedRelevance:
    LOG.warning("relevance: left out, so that lists are as long as asked: %s", why)
    return FittedRelevance(None, f"left out: {why}")


def find_end(lists: ScoredLists, config: RelevanceConfig, seed: int) -> FittedRelevance:
    """Return the map with its threshold, which is found on queries that it was not fitted on."""
    by_score = fit_map(lists, by_query=False)
    z = lists.logits(by_score)
    found, threshold, how = by_score, _threshold(z, lists, config), "by the score alone"
    if config.map != "score":
        other = out_of_fold(lists, seed)
        reached = _threshold(other, lists, config)
        better, said = _compared((z, threshold), (other, reached), lists, config, seed)
        if better or config.map == "query":
            found, threshold = fit_map(lists, by_query=True), reached
            how = "by score and query"
        how = f"{how}{said}"
    if threshold is None:
        return _left_out(
            f"no threshold reaches relevance.precision: {config.precision:.3g} on the validation "
            f"queries, where {Kept.of(lists, lists.there).precision:.3g} of whole lists are hits: "
            "ask for less, or for keep_recall"
        )
    goal = f"{config.keep_recall} of their recall stays"
    if config.precision is not None:
        goal = f"{config.precision} of all items are hits"
    words = f"lists of {found.k} end so that {goal} on the validation queries, {how}"
    found = replace(found, threshold=threshold, words=words)
    LOG.info("relevance: %s; items with a chance of %.3g or more stay", words, found.chance)
    return FittedRelevance(found, words)


def out_of_fold(lists: ScoredLists, seed: int) -> Floats:
    """Return z of each place, (Q, K), by the query, from maps fitted on other queries."""
    fold = np.random.default_rng(seed).permutation(len(lists)) % _FOLDS
    z = np.full(lists.scores.shape, -np.inf)
    for number in range(_FOLDS):
        own = fold == number
        z[own] = lists.take(own).logits(fit_map(lists.take(~own), by_query=True))
    return z


def _threshold(z: Floats, lists: ScoredLists, config: RelevanceConfig) -> float | None:
    if config.keep_recall is not None:
        return threshold_of_recall(z, lists, config.keep_recall)
    assert config.precision is not None
    return threshold_of_precision(z, lists, config.precision)


_Cut = tuple[Floats, float | None]


def _compared(
    score: _Cut, query: _Cut, lists: ScoredLists, config: RelevanceConfig, seed: int
) -> tuple[bool, str]:
    """Return whether the map by query is better, beyond the error of measurement, and words."""
    if score[1] is None or query[1] is None:
        return query[1] is not None, ""
    keep = [lists.there & (score[0] >= score[1]), lists.there & (query[0] >= query[1])]
    if config.keep_recall is not None:
        items = [one.sum(1).astype(np.float64) for one in keep]
        found = paired_difference(items[1], items[0], seed=seed)
        return found.high < 0, _in_words("items", items, found)
    recall = [(lists.recall * one).sum(1) for one in keep]
    found = paired_difference(recall[1], recall[0], seed=seed)
    return found.low > 0, _in_words("recall", recall, found)


def _in_words(what: str, values: list[NDArray[np.float64]], found: Difference) -> str:
    by_score, by_query = (float(one.mean()) for one in values)
    return (
        f" (mean {what} by the score {by_score:.3g}, by query {by_query:.3g}: {found.mean:+.2g}, "
        f"95 % {found.low:+.2g} to {found.high:+.2g})"
    )
