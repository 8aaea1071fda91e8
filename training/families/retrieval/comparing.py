"""Models that retrieve, compared: each answers the same queries over the same catalogue.

A model builds its queries as its family does: of whole histories, or of sessions step by step.
They are the same queries where they are of the same users and have the same relevant items.

Shape letters: Q queries, N items of a model's catalogue.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.distinct import is_among
from recsys.core.errors import ConfigError, DataError
from recsys.core.strict import nearest
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST
from recsys.metrics.classification import Interval
from recsys.metrics.intervals import Difference, bootstrap_intervals, paired_differences
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.comparison import ALL, ComparedModel, Comparison, Measured
from recsys.training.evaluation.evaluate import Ranker, evaluate, vector_ranker
from recsys.training.evaluation.results import Evaluation, RankerResult
from recsys.training.evaluation.slices import slice_k, slice_recall
from recsys.training.families.comparing import (
    CommonTest,
    Comparer,
    ModelOnTest,
    NamedModel,
    words_of_roles,
)
from recsys.training.families.list_evaluation import protocol_of
from recsys.training.families.list_metrics import METRICS
from recsys.training.families.plain.choose import baseline_rankers, named_as
from recsys.training.families.retrieval.memory import memory_of
from recsys.training.families.retrieval.reading import ListData, Read, RetrievalData
from recsys.training.families.retrieval.validation import vectors_with


@dataclass(frozen=True)
class Asked:
    """A model with its queries, and what answers them."""

    model: ModelOnTest
    reading: ListData
    queries: Queries
    ranker: Ranker

    @property
    def item_ids(self) -> pa.Array:
        """The ids of its catalogue, (N,)."""
        data = self.reading.data
        return data.tables.items.column(data.schema.item_key).combine_chunks()

    @property
    def user_ids(self) -> pa.Array:
        """The user of each query, (Q,)."""
        data = self.reading.data
        ids = data.tables.users.column(data.schema.user_key).combine_chunks()
        return ids.take(pa.array(self.queries.users))


@dataclass(frozen=True)
class Elsewhere:
    """A ranker of a model's own queries and catalogue as one of the common queries and catalogue.

    place: (N,) the model's items in the common catalogue, -1 where that lacks them.
    """

    ranker: Ranker
    queries: Queries
    place: NDArray[np.int64]

    def __call__(
        self, queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the best k items of each of the common queries, (Q, k)."""
        own = None if among is None else np.flatnonzero(is_among(self.place, among))
        top = self.ranker(self.queries, k, among=own)
        return np.where(top >= 0, self.place[top], -1).astype(np.int32)


def _settled(test: CommonTest) -> CommonTest:
    """Return the test with what its metric needs.

    Raises:
        ConfigError: there is no such metric of lists.
    """
    kind, at, k = test.metric.partition("_at_")
    if kind not in METRICS or not at or not k.isdecimal() or not int(k):
        ks = test.config.evaluation.ks
        known = [f"{name}_at_{one}" for one in ks for name in METRICS]
        raise ConfigError(
            f"metric '{test.metric}' is none of lists{nearest(test.metric, known)}; there are "
            f"{', '.join(f'{name}_at_K' for name in METRICS)}, with any length of list K"
        )
    evaluation = test.config.evaluation
    ks = tuple(sorted({*evaluation.ks, int(k)}))
    return replace(
        test,
        config=test.config.model_copy(
            update={"evaluation": evaluation.model_copy(update={"ks": ks})}
        ),
    )


def compare_lists(every: tuple[Asked, ...], test: CommonTest) -> Comparison:
    """Compare models that retrieve on the queries that they are asked.

    Raises:
        ConfigError: they are not asked the same queries.
    """
    settings = test.config.evaluation
    common = max(every, key=lambda one: len(one.item_ids))
    rankers: dict[str, Ranker] = {one.model.name: _elsewhere(one, common) for one in every}
    plain, left_out = _plain_rankers(every, common, test)
    evaluation = evaluate(
        common.reading.data,
        common.queries,
        {**rankers, **{name: one for name, one in plain.items() if name not in rankers}},
        settings,
        protocol=protocol_of(test.config, common.reading.data),
        seed=test.config.training.seed,
        left_out=left_out,
    )
    k = slice_k(settings)
    unknown = {f"new to {one.model.name}": one.model.unknown for one in every}
    return Comparison(
        models=_compared(evaluation, common.queries, every, test),
        metric=test.metric,
        asked=evaluation.asked,
        protocol={
            "data": test.source,
            **evaluation.protocol,
            **{name: words for name, words in unknown.items() if words},
        },
        headline=tuple(dict.fromkeys((test.metric, f"ndcg_at_{k}", f"recall_at_{k}"))),
        warnings=tuple(f"{one.model.name}: {one.model.leak}" for one in every if one.model.leak),
        left_out=evaluation.left_out,
    )


def ask_vectors(read: Read, model: NamedModel, test: CommonTest) -> Asked:
    """Return a model of vectors with its queries, and what answers them.

    read: how its family reads a log.

    Raises:
        ConfigError, UserError: as `ask_lists`.
    """
    return ask_lists(read, _by_vectors, model, test)


def ask_lists(
    read: Callable[[Any, Dataset], ListData],
    answering: Callable[[ModelOnTest, Any, Queries], Ranker],
    model: NamedModel,
    test: CommonTest,
) -> Asked:
    """Return a model with its queries, and what answers them.

    Args:
        read: how its family reads a log.
        answering: what answers queries with the model, given its data as read.
        model: which one.
        test: what is asked of all.

    Raises:
        ConfigError: the test asks for other queries than such a model answers.
        UserError: the model cannot read the data.
    """
    settings: RetrievalEvaluationConfig = test.config.evaluation
    asks: RetrievalEvaluationConfig = test.given_to(model).config.evaluation
    if asks.asked != settings.asked:
        raise ConfigError(
            f"{model.name} is asked for {asks.asked}, and {test.source} asks for {settings.asked} "
            f"(evaluation.queries): compare on a configuration that asks for {asks.asked}"
        )
    here = ModelOnTest.of(model, test)
    reading = read(here.opened.config, here.data)
    queries = reading.queries(TEST, settings.max_queries)
    if not len(queries):
        seen = " but items of earlier rows" if settings.filter_seen else ""
        raise DataError(
            f"{test.source}: no user has anything{seen} in the test part",
            remedy="compare on data with later rows, or with a larger split.test",
        )
    return Asked(here, reading, queries, answering(here, reading, queries))


def _by_vectors(here: ModelOnTest, reading: RetrievalData, queries: Queries) -> Ranker:
    network = here.opened.retrieval_model()
    reading.restore(network)
    fitted = memory_of(here.opened, reading, network)
    items, vectors = vectors_with(network, here.data, queries)
    vectors, gain = network.without_gain(vectors)
    return vector_ranker(
        items,
        vectors,
        filter_seen=reading.config.evaluation.filter_seen,
        gain=gain,
        memory=None if fitted is None else fitted.memory,
    )


def _elsewhere(asked: Asked, common: Asked) -> Ranker:
    """Return the ranker of `asked` as one of the queries of `common`.

    Raises:
        ConfigError: they are other queries.
    """
    if asked is common:
        return asked.ranker
    place = _places(asked.item_ids, common.item_ids)
    _check_same(asked, common, place)
    return Elsewhere(asked.ranker, asked.queries, place)


def _places(ids: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """Return where each of `ids` (N,) is in `among`, -1 where it is not."""
    if ids.type != among.type:
        return np.full(len(ids), -1)
    return np.asarray(pc.fill_null(pc.index_in(ids, value_set=among), -1)).astype(np.int64)


def _check_same(asked: Asked, common: Asked, place: NDArray[np.int64]) -> None:
    own, other = asked.queries, common.queries
    same = len(own) == len(other) and asked.user_ids.equals(common.user_ids)
    if same:
        lengths = np.array_equal(own.relevant.offsets.numpy(), other.relevant.offsets.numpy())
        same = lengths and np.array_equal(
            _sorted(own, place[own.relevant.values.numpy()]),
            _sorted(other, other.relevant.values.numpy()),
        )
    if same:
        return
    why = words_of_roles(asked.model, common.model)
    if asked.reading.cutting and asked.reading.cutting != common.reading.cutting:
        why += f"; {asked.model.name} cuts sessions in another way (section 'sessions')"
    raise ConfigError(
        f"{asked.model.name} and {common.model.name} are not asked the same: {len(own):,} and "
        f"{len(other):,} queries, whose users or relevant items differ{why}. Compare models that "
        "read the log in the same way"
    )


def _sorted(queries: Queries, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the relevant `items` (T,) of queries, ascending within each query."""
    return items[np.lexsort((items, queries.relevant.owners().numpy()))]


def _plain_rankers(
    every: tuple[Asked, ...], common: Asked, test: CommonTest
) -> tuple[dict[str, Ranker], dict[str, str]]:
    """Return the plain models by name, and why others are missing.

    Those of the configuration, then, where other models read the log in another way, all that suit
    that way and are not there yet.
    """
    found: dict[str, Ranker] = {}
    left_out: dict[str, str] = {}
    readings = {(one.reading.sessions is None): one for one in reversed(every)}
    for one in sorted(readings.values(), key=every.index):
        settings = test.config.evaluation
        if one is not every[0]:
            settings = settings.model_copy(update={"baselines": ("auto",)})
        plain, missing = baseline_rankers(one.reading.data, settings, one.reading.sessions)
        place = _places(one.item_ids, common.item_ids)
        for name, ranker in plain.items():
            if name not in found:
                same = one is common
                found[name] = ranker if same else Elsewhere(ranker, one.queries, place)
        left_out |= missing
    return found, {name: why for name, why in left_out.items() if name not in found}


def _compared(
    evaluation: Evaluation, queries: Queries, every: tuple[Asked, ...], test: CommonTest
) -> tuple[ComparedModel, ...]:
    """Return every ranker with its differences to the first."""
    settings: RetrievalEvaluationConfig = test.config.evaluation
    values = {
        name: dict(_values(result, evaluation, queries, settings))
        for name, result in evaluation.results.items()
    }
    first, *_ = values
    about = {one.model.name: one for one in every}
    measuring = _Measuring(settings.bootstrap_samples, test.config.training.seed)
    found = []
    for name, own in values.items():
        slices = {
            inside: measuring.measured(of_metrics, values[first].get(inside, {}), name == first)
            for inside, of_metrics in own.items()
        }
        slices[ALL] |= _of_all_lists(evaluation, name, first)
        asked = about.get(name)
        kind, model_id = name, ""
        if asked is not None:
            opened = asked.model.opened
            kind, model_id = opened.description.kind, str(opened.bundle.model_id)
        found.append(ComparedModel(name, kind, model_id, slices))
    plain = [one for one in found if one.is_plain]
    return tuple(
        _beaten(one, _unlike(about[one.name], plain, settings), values, test.metric, measuring)
        if one.name in about
        else one
        for one in found
    )


def _unlike(
    asked: Asked, plain: list[ComparedModel], settings: RetrievalEvaluationConfig
) -> list[ComparedModel]:
    """Return the plain models without the model itself, fitted anew, where it is one."""
    itself = named_as(asked.model.opened.config.model, settings)
    return [one for one in plain if one.name not in itself]


def _of_all_lists(evaluation: Evaluation, name: str, first: str) -> dict[str, Measured]:
    """Return the metrics of all lists together, coverage and novelty, which have no interval."""
    result, nan = evaluation.results[name], float("nan")
    count, found = len(evaluation.query_users), {}
    for metric, value in result.metrics.items():
        if metric not in result.per_query:
            less = value - evaluation.results[first].metrics[metric]
            difference = None if name == first else Difference(less, nan, nan)
            found[metric] = Measured(Interval(value, nan, nan), difference, count)
    return found


_Values = Mapping[str, NDArray[np.float64]]


def _values(
    result: RankerResult,
    evaluation: Evaluation,
    queries: Queries,
    settings: RetrievalEvaluationConfig,
) -> Iterator[tuple[str, _Values]]:
    """Yield slices with their metrics a query, each name -> (Q,)."""
    yield ALL, result.per_query
    recall = f"recall_at_{slice_k(settings)}"
    counts = evaluation.train_counts
    for name, values in slice_recall(
        result.top, result.per_query, counts, queries, settings
    ).items():
        yield name, {recall: values}


@dataclass(frozen=True)
class _Measuring:
    """How values a query become means with intervals."""

    samples: int
    seed: int

    def measured(self, own: _Values, other: _Values, is_first: bool) -> dict[str, Measured]:
        """Return the means of `own`, with the differences to `other` unless it is the first."""
        bounds = bootstrap_intervals(np.stack(list(own.values()), 1), self.samples, self.seed)
        less = {} if is_first else self.differences(own, other)
        return {
            name: Measured(
                Interval(float(np.nanmean(values)), float(low), float(high)),
                less.get(name),
                int((~np.isnan(values)).sum()),
            )
            for (name, values), (low, high) in zip(own.items(), bounds, strict=True)
        }

    def differences(self, own: _Values, other: _Values) -> dict[str, Difference]:
        """Return the mean differences, own - other, with their intervals."""
        return paired_differences(own, other, self.samples, self.seed)


def _beaten(
    model: ComparedModel,
    plain: list[ComparedModel],
    values: Mapping[str, Mapping[str, _Values]],
    metric: str,
    measuring: _Measuring,
) -> ComparedModel:
    """Note the best plain model where it is better by the metric that decides."""
    if not plain:
        return model
    best = max(plain, key=lambda one: one.metrics[metric].value.value)
    behind = measuring.differences(
        {metric: values[model.name][ALL][metric]}, {metric: values[best.name][ALL][metric]}
    )[metric]
    return replace(model, beaten_by=best.name, behind=behind) if behind.mean < 0 else model


LISTS = Comparer("answers with lists of items", _settled, compare_lists)
"""How models that retrieve are compared, those of sessions among them."""
