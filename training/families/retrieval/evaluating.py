"""Evaluation of a model that retrieves on the test part, with baselines, and its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.embeddings.diagnostics import Diagnosis
from recsys.features.dataset.dataset import Dataset, drawn_validation
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.layers.geometry import directions_of
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.retrieval.index.registry import require
from recsys.training.config.file import dump_config
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.evaluation.evaluate import ExtraRankers, Ranker, evaluate, vector_ranker
from recsys.training.evaluation.results import WITHOUT_MEMORY, Evaluation
from recsys.training.families.opened import OpenedModel
from recsys.training.families.plain.choose import baseline_rankers, check_baselines
from recsys.training.families.retrieval.memory import FittedMemory, memory_of
from recsys.training.families.retrieval.reading import Read, RetrievalData
from recsys.training.reports.showcase import examples, item_groups, item_titles

METRICS = ("recall", "hit_rate", "ndcg", "mrr")


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with what it was made from: queries, item vectors (n, E), query vectors."""

    evaluation: Evaluation
    queries: Queries
    item_vectors: Tensor
    query_vectors: Tensor


def check_settings(config: RetrievalExperiment) -> None:
    """Refuse, before any work is done, a metric, a baseline or an index that is not available.

    Raises:
        ConfigError: which, and why.
    """
    names = [f"{name}_at_{k}" for k in config.evaluation.ks for name in METRICS]
    if config.training.metric not in names:
        raise ConfigError(
            f"training.metric: '{config.training.metric}' is not computed; evaluation.ks allows "
            f"{', '.join(names)}"
        )
    check_baselines(config)
    require(config.index.kind)


def evaluate_model(
    reading: RetrievalData,
    model: RetrievalModel,
    extra_rankers: ExtraRankers | None = None,
    fitted: FittedMemory | None = None,
) -> Evaluated:
    """Evaluate `model` with its memory on the test part, and beside it without."""
    config, data, sessions = reading.config, reading.data, reading.sessions
    settings, geometry = config.evaluation, config.model.geometry
    queries = reading.queries(TEST, settings.max_queries)
    items = catalogue_vectors(model, data.items)
    vectors, gain = model.without_gain(query_vectors(model, queries.block, items, queries.history))
    filter_seen = settings.filter_seen
    of_vectors = partial(vector_ranker, items, vectors, filter_seen=filter_seen, gain=gain)
    memory = None if fitted is None else fitted.memory
    rankers: dict[str, Ranker] = {config.model.kind: of_vectors(memory=memory)}
    if memory is not None:
        rankers[WITHOUT_MEMORY] = of_vectors()
    baselines, left_out = baseline_rankers(data, settings, sessions)
    rankers.update(baselines)
    rankers |= reading.trained_baselines()
    if extra_rankers is not None:
        rankers |= extra_rankers(data, queries, filter_seen=filter_seen)
    evaluation = evaluate(
        data,
        queries,
        rankers,
        settings,
        protocol=protocol_of(config, data) | ({} if fitted is None else {"memory": fitted.words}),
        seed=config.training.seed,
        item_vectors=directions_of(items, geometry),
        query_vectors=directions_of(vectors, geometry),
        temperature=float(model.temperature.detach()),
        left_out=left_out,
    )
    fell_back = {name: int(one.fell_back(queries).sum()) for name, one in baselines.items()}
    evaluation = replace(
        evaluation,
        metric=config.training.metric,
        fell_back={name: count for name, count in fell_back.items() if count},
        fallback=next((one.popular.words for one in baselines.values()), "popularity"),
    )
    return Evaluated(evaluation, queries, items, vectors)


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
    evaluated = evaluate_model(reading, model, fitted=memory_of(opened, reading, model))
    report_on(report, title, reading, evaluated)
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
    from recsys.training.reports.retrieval import write_report

    config, data, items = reading.config, reading.data, evaluated.item_vectors
    write_report(
        path,
        title=title,
        config_text=dump_config(config),
        evaluation=evaluated.evaluation,
        history=history,
        item_titles=item_titles(data),
        item_groups=item_groups(data),
        item_vectors=directions_of(items, config.model.geometry).numpy(),
        examples=examples(data, evaluated.queries, evaluated.evaluation),
        facts=data_facts(data),
        embedding=embedding,
    )


def data_facts(data: Dataset) -> dict[str, str]:
    """Describe how much data there is and what was left out."""
    facts = {
        "interactions": f"{len(data.tables.events):,}",
        "users": f"{data.num_users:,}",
        "items": f"{data.num_items:,}",
        "data fingerprint": data.tables.fingerprint,
    }
    for drop in data.tables.drops:
        facts[f"{drop.table}.{drop.column}: {drop.reason}"] = f"{drop.rows:,} rows ({drop.policy})"
    return facts


def protocol_of(config: RetrievalExperiment, data: Dataset) -> dict[str, str]:
    """Describe how the log was split."""
    counts = [int((data.part == part).sum()) for part in (TRAIN, VALIDATION, TEST)]
    words = {
        "time": "global time split",
        "leave_one_out": "leave one out, each user's last row",
        "column": f"given by the column '{config.split.column}'",
    }[config.split.kind]
    if config.split.join_validation:
        words += "; validation rows trained on, too"
    sizes = "{:,} training, {:,} validation and {:,} test rows".format(*counts)
    drawn = drawn_validation(config.schema_, data.tables, config.split)
    return {"split": words, **({"validation": drawn} if drawn else {}), "rows": sizes}
