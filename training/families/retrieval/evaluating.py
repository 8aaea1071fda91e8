"""Evaluation of a model that retrieves on the test part, with baselines, and its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from recsys.embeddings.diagnostics import Diagnosis
from recsys.features.bundle.files import read_relevance
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST
from recsys.layers.geometry import directions_of
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.training.evaluation.cut_lists import cut_lists
from recsys.training.evaluation.evaluate import Ranker, evaluate, vector_ranker
from recsys.training.evaluation.results import WITHOUT_MEMORY, Evaluation, NothingHeldOut
from recsys.training.families.family import Given
from recsys.training.families.golden import golden_requests
from recsys.training.families.held_out import nothing_held_out
from recsys.training.families.list_evaluation import (
    ListReport,
    protocol_of,
    with_fallbacks,
    write_list_report,
)
from recsys.training.families.opened import OpenedModel
from recsys.training.families.plain.choose import baseline_rankers, check_baselines
from recsys.training.families.retrieval.memory import FittedMemory, memory_of
from recsys.training.families.retrieval.reading import Read, RetrievalData
from recsys.training.families.retrieval.relevance import FittedRelevance, scored_lists


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with what it was made from: queries, item vectors (n, E), query vectors.

    queries: None where nothing was held out; the vectors are of requests with whole histories then.
    """

    evaluation: Evaluation | NothingHeldOut
    queries: Queries | None
    item_vectors: Tensor
    query_vectors: Tensor


def evaluate_model(
    reading: RetrievalData,
    model: RetrievalModel,
    fitted: FittedMemory | None = None,
    given: Given | None = None,
    ends: FittedRelevance | None = None,
) -> Evaluated:
    """Evaluate `model` with its memory on what is held out, and beside it without.

    ends: where relevance ends in its lists.
    """
    config, data, sessions = reading.config, reading.data, reading.sessions
    settings, geometry, part = config.evaluation, config.model.geometry, config.split.evaluated
    assert part is not None, "rows are held out"
    queries = reading.queries(part, settings.max_queries)
    items = catalogue_vectors(model, data.items)
    vectors, gain = model.without_gain(query_vectors(model, queries.block, items, queries.history))
    filter_seen = settings.filter_seen
    of_vectors = partial(vector_ranker, items, vectors, filter_seen=filter_seen, gain=gain)
    memory, said = (None, {}) if fitted is None else (fitted.memory, {"memory": fitted.words})
    own = of_vectors(memory=memory)
    rankers: dict[str, Ranker] = {config.model.kind: own}
    if memory is not None:
        rankers[WITHOUT_MEMORY] = of_vectors()
    baselines, left_out = baseline_rankers(data, settings, sessions)
    rankers.update(baselines)
    rankers |= reading.trained_baselines()
    given = given or Given()
    if given.extra_rankers is not None:
        rankers |= given.extra_rankers(data, queries, filter_seen=filter_seen)
    evaluation = evaluate(
        data,
        queries,
        rankers,
        settings,
        protocol=protocol_of(config, data) | reading.notes | said,
        seed=config.training.seed,
        item_vectors=directions_of(items, geometry),
        query_vectors=directions_of(vectors, geometry),
        temperature=float(model.temperature.detach()),
        left_out=left_out,
        part=part,
        of_source=given.is_source,
    )
    evaluation = with_fallbacks(evaluation, baselines, queries)
    evaluation = replace(evaluation, metric=config.training.metric)
    if ends is not None:
        protocol = {**evaluation.protocol, "relevance": ends.words}
        evaluation = replace(evaluation, protocol=protocol)
        if ends.relevance is not None and part == TEST:  # it was fitted on the validation part
            k, temperature = ends.relevance.k, float(model.temperature.detach())
            whole = scored_lists(own, queries, min(k, data.num_items), temperature)
            evaluation = replace(evaluation, ended=cut_lists(whole, ends.relevance))
    return Evaluated(evaluation, queries, items, vectors)


def unmeasured(
    reading: RetrievalData, model: RetrievalModel, chosen: ModelBundle | None
) -> Evaluated:
    """Return what there is to say of `model` where nothing is held out.

    chosen: the model whose training chose its settings.
    """
    config, data = reading.config, reading.data
    asked = golden_requests(
        data,
        reading.sessions,
        history_length=config.model.history_length,
        policies=config.policies,
    ).encoded
    items = catalogue_vectors(model, data.items)
    vectors, _ = model.without_gain(query_vectors(model, asked.block, items, asked.history))
    evaluation = nothing_held_out(config, chosen, int(data.train_counts.sum()))
    return Evaluated(evaluation, None, items, vectors)


def evaluate_opened(title: str, read: Read, opened: OpenedModel, report: Path) -> Evaluation:
    """Evaluate an opened model on its own split of the data, and write `report`.

    Raises:
        ConfigError: a baseline is not available.
        IntegrityError: the weights are not those of such a model.
    """
    config = opened.config
    check_baselines(config)
    reading = read(config, opened.data())
    model = opened.retrieval_model()
    reading.restore(model)
    memory, relevance = memory_of(opened, reading, model), read_relevance(opened.bundle)
    ends = None if relevance is None else FittedRelevance(relevance, relevance.words)
    evaluated = evaluate_model(reading, model, fitted=memory, ends=ends)
    report_on(report, title, reading, evaluated)
    assert isinstance(evaluated.evaluation, Evaluation), "rows are held out"
    return evaluated.evaluation


def report_on(
    path: Path,
    title: str,
    reading: RetrievalData,
    evaluated: Evaluated,
    history: Sequence[Mapping[str, float]] = (),
    embedding: Diagnosis | None = None,
) -> None:
    """Write the HTML report of an evaluation."""
    vectors = directions_of(evaluated.item_vectors, reading.config.model.geometry)
    write_list_report(
        path,
        title,
        ListReport(reading.config, reading.data, evaluated.evaluation, evaluated.queries),
        history=history,
        item_vectors=vectors.numpy(),
        embedding=embedding,
    )
