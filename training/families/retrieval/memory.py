"""The memory of pairs of a model that retrieves: counted, and weighed on the validation queries."""

import logging
from dataclasses import dataclass, replace
from functools import partial

from recsys.core.errors import ConfigError
from recsys.features.bundle.files import read_memory, write_memory
from recsys.features.bundle.searching import Search, VectorSearch
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import VALIDATION
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.plain.limits import why_not_counted
from recsys.retrieval.memory import WEIGHT, PairMemory
from recsys.training.evaluation.evaluate import ranking_metrics, vector_ranker
from recsys.training.families.opened import OpenedModel
from recsys.training.families.plain.rows import counted
from recsys.training.families.recounting import NewLog, Renewed
from recsys.training.families.retrieval.reading import RetrievalData

LOG = logging.getLogger(__name__)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""What `auto` chooses from."""
LEAST_QUERIES = 200
"""Validation queries that `auto` needs to choose. All weights answer the same ones, so that a few
hundred tell them apart."""


@dataclass(frozen=True)
class FittedMemory:
    """A memory, or None where none is better, and what to say of it."""

    memory: PairMemory | None
    words: str


def fit_memory(reading: RetrievalData, model: RetrievalModel) -> FittedMemory | None:
    """Count pairs in the training rows, and choose how much they gain; None: none is wanted."""
    config = reading.config.model.memory
    if config.kind == "none":
        return None
    data = reading.data
    rows = counted(data, reading.sessions)
    why_not = why_not_counted(len(rows.item), data.num_items)
    if why_not is not None:
        LOG.warning("memory: left out: %s; set model.memory: none to go without it", why_not)
        return FittedMemory(None, f"left out: {why_not}")
    in_scores = float(model.temperature.detach())  # one logit
    vectors = catalogue_vectors(model, data.items)
    memory = PairMemory.of(
        rows.sequence,
        rows.item,
        data.num_items,
        config,
        gain=in_scores,
        vectors=vectors,
        weight=rows.weight,
    )
    weight, how = config.weight, "as configured"
    if weight == "auto":
        weight, how = _chosen(reading, model, memory)
    words = _in_words(memory, weight, how)
    LOG.info("memory: %s", words)
    if not weight:
        return FittedMemory(None, words)
    return FittedMemory(replace(memory, gain=weight * in_scores), words)


def recounted_memory(opened: OpenedModel, search: Search, log: NewLog) -> Renewed:
    """Return the model with the pairs of a newer log; what they gain stays.

    Raises:
        ConfigError: the model has no memory, or the counts do not fit into that of the machine.
    """
    assert isinstance(search, VectorSearch)
    before = search.memory
    if before is None:
        where = opened.bundle.path
        raise ConfigError(
            f"{where}: this {opened.config.model.kind} has no memory of pairs, so no counts: train "
            f"it on the newer log, from its weights (recsys train CONFIG --warm-start {where})"
        )
    rows = counted(log.data, log.sessions)
    why_not = why_not_counted(len(rows.item), log.data.num_items)
    if why_not is not None:
        raise ConfigError(f"memory: {why_not}")
    config = search.model.config.memory
    memory = PairMemory.of(
        rows.sequence,
        rows.item,
        log.data.num_items,
        config,
        gain=before.gain,
        vectors=search.vectors,
        weight=rows.weight,
    )
    words = {"memory": f"{memory.shares.nnz:,} pairs of items, {before.shares.nnz:,} before"}
    return Renewed(replace(search, memory=memory), partial(write_memory, memory=memory), words)


def memory_of(
    opened: OpenedModel, reading: RetrievalData, model: RetrievalModel
) -> FittedMemory | None:
    """Return the memory of an opened model, of the catalogue of `reading`; None: it has none."""
    place = opened.rows_in(reading.data)
    memory = read_memory(opened.bundle, len(place))
    if memory is None:
        return None
    moved = memory.onto(place, reading.data.num_items)
    weight = memory.gain / float(model.temperature.detach())
    return FittedMemory(moved, _in_words(moved, weight, "as in the bundle"))


def _in_words(memory: PairMemory, weight: float, how: str) -> str:
    return f"{memory.shares.nnz:,} pairs of items, weight {weight:.3g} ({how})"


def _chosen(reading: RetrievalData, model: RetrievalModel, memory: PairMemory) -> tuple[float, str]:
    """Return the weight with the best metric on the validation queries, and how it was found."""
    metric, evaluation = reading.config.training.metric, reading.config.evaluation
    queries = reading.queries(VALIDATION, reading.config.training.max_validation_queries)
    if len(queries) < LEAST_QUERIES:
        return WEIGHT, f"by default, as there are {len(queries):,} validation queries"
    found = _metric_by_weight(reading, model, memory, queries, max(evaluation.ks))
    best = max(WEIGHTS, key=lambda weight: found[weight])
    words = f"{metric} {found[best]:.4f} on the validation queries, {found[0.0]:.4f} without"
    return best, words


def _metric_by_weight(
    reading: RetrievalData, model: RetrievalModel, memory: PairMemory, queries: Queries, k: int
) -> dict[float, float]:
    settings = reading.config.evaluation
    items = catalogue_vectors(model, reading.data.items)
    vectors, gain = model.without_gain(query_vectors(model, queries.block, items, queries.history))
    found = {}
    for weight in WEIGHTS:
        scaled = replace(memory, gain=memory.gain * weight) if weight else None
        rank = vector_ranker(
            items, vectors, filter_seen=settings.filter_seen, gain=gain, memory=scaled
        )
        metrics = ranking_metrics(rank(queries, k), queries.relevant, settings.ks)
        found[weight] = float(metrics[reading.config.training.metric].mean())
    return found
