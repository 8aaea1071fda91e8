"""Retrieval as a job: a data set in; a trained model judged, reported and bundled."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.diagnostics import Diagnosis, FeatureValues
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, continued, drawn_validation, prepare
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import Sessions, cut_sessions
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.encoding.feature_values import dataset_feature_values
from recsys.layers.geometry import directions_of
from recsys.models.retrieval import RetrievalModel, catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.loop import Task
from recsys.training.engine.ranks import World
from recsys.training.engine.warm_start import Earlier, parent_of
from recsys.training.evaluation.evaluate import Ranker, evaluate, vector_ranker
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.plain.choose import baseline_rankers
from recsys.training.families.retrieval.contents import write_retrieval
from recsys.training.families.retrieval.pair_calibrating import (
    check_calibration,
    probability_metrics,
    take_probability,
)
from recsys.training.families.session.ids_only import ids_only_ranker
from recsys.training.families.session.task import session_task
from recsys.training.families.two_tower.task import two_tower_task
from recsys.training.reports.retrieval import write_report
from recsys.training.reports.showcase import examples, item_groups, item_titles

ExtraRankers = Callable[[Dataset, Queries], dict[str, Ranker]]
"""More rankers to judge beside the model and the baselines (the built-in world's best)."""


_TITLES = {"two_tower": "Two-tower retrieval", "session": "Session transformer"}


class RetrievalJob:
    """What `recsys.training.jobs.train` does with a model that retrieves, step by step."""

    def __init__(
        self,
        config: ExperimentConfig,
        world: World,
        extra_rankers: ExtraRankers | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        self.config, self.world, self.earlier = config, world, earlier
        self.extra_rankers = extra_rankers
        with world.first_before_others(config.cache is not None):
            self.data = continued(load_data(config), None if earlier is None else earlier.encoder)
        self.sessions = sessions_in(config, self.data)
        self.facts = data_facts(self.data)
        self.fingerprint = self.data.tables.fingerprint

    @property
    def layouts(self) -> tuple[FeatureLayout, ...]:
        """The sides of the model's embedding: items and query."""
        return self.data.encoder.retrieval_layouts(of_steps=self.config.of_sessions)

    def task(self) -> Task[Any]:
        """Return what the loop trains."""
        config, data = self.config, self.data
        if config.calibration != "none":
            check_calibration(config, data)
        limit = config.training.max_validation_queries
        validation = queries_of(config, data, self.sessions, VALIDATION, limit)
        if len(validation) == 0 and not config.split.join_validation:
            raise ConfigError("split: no user has a validation item; choose a larger share")
        if self.sessions is not None:
            return session_task(config, data, self.sessions, validation, self.world)
        return two_tower_task(config, data, validation, self.world)

    def feature_values(self) -> list[FeatureValues]:
        """Return what the training rows hold of each sparse feature."""
        return dataset_feature_values(self.data)

    def finish(
        self,
        run_dir: Path,
        model: RetrievalModel,
        history: list[dict[str, float]],
        embedding: Diagnosis | None,
    ) -> tuple[Evaluation, Path, Path]:
        """Judge `model`, write bundle and report; return the evaluation and both paths."""
        config, data = self.config, self.data
        evaluation, queries, items, vectors = judge(config, data, model, self.extra_rankers)
        own = evaluation.results[config.model.kind].metrics
        probability = None
        if isinstance(model, TwoTower):
            probability = take_probability(config, data, model)
        if probability is not None and isinstance(model, TwoTower):
            judged = probability_metrics(config, data, model, probability)
            evaluation = replace(evaluation, probability=judged)
        bundle = write_retrieval(
            run_dir / "bundle",
            config,
            data,
            model,
            query_vectors=vectors,
            metrics={"test": {**own, **evaluation.representation, **evaluation.probability}},
            origin=parent_of(self.earlier),
            probability=probability,
        )
        report = run_dir / "report.html"
        report_on(report, config, data, evaluation, queries, items, history, embedding)
        return evaluation, bundle, report


def tracked_metrics(kind: str, evaluation: Evaluation) -> dict[str, float]:
    """Return the evaluation as MLflow metrics: the model's own, then those of each baseline."""
    results = evaluation.results[kind]
    own = {**results.metrics, **evaluation.representation, **evaluation.probability}
    found = {f"test/{name}": value for name, value in own.items()}
    for name, result in evaluation.results.items():
        if name != kind:
            found |= {f"test/{name}/{metric}": v for metric, v in result.metrics.items()}
    return found


def load_data(config: ExperimentConfig) -> Dataset:
    """Read and encode the tables of `config`, from its cache where it has one."""
    parts = (config.schema_, config.data, config.policies, config.split, config.embedding.lookups)
    if config.cache is None:
        return prepare(*parts)
    return cached(Path(config.cache), lambda: prepare(*parts), *parts)


def sessions_in(config: ExperimentConfig, data: Dataset) -> Sessions | None:
    """Return how the log is cut into sessions, where the model is one of sessions."""
    return cut_sessions(data, config.sessions) if config.of_sessions else None


def queries_of(
    config: ExperimentConfig, data: Dataset, sessions: Sessions | None, part: int, limit: int
) -> Queries:
    """Return the queries of `part` as the model reads them, at most `limit`."""
    length, seed = config.retrieval.history_length, config.training.seed
    filter_seen = config.evaluation.filter_seen
    if sessions is None:
        return build_queries(
            data, part, history_length=length, filter_seen=filter_seen, limit=limit, seed=seed
        )
    return build_session_queries(
        data,
        sessions,
        part,
        per="event" if config.evaluation.queries == "events" else "user",
        history_length=length,
        filter_seen=filter_seen,
        limit=limit,
        seed=seed,
    )


def judge(
    config: ExperimentConfig,
    data: Dataset,
    model: RetrievalModel,
    extra_rankers: ExtraRankers | None = None,
) -> tuple[Evaluation, Queries, Tensor, Tensor]:
    """Evaluate `model` on the test part; returns also queries, item and query vectors."""
    settings, geometry = config.evaluation, config.retrieval.geometry
    sessions = sessions_in(config, data)
    queries = queries_of(config, data, sessions, TEST, settings.max_queries)
    items = catalogue_vectors(model, data.items)
    vectors, gain = model.without_gain(query_vectors(model, queries.block, items, queries.history))
    rankers: dict[str, Ranker] = {
        config.model.kind: vector_ranker(
            items, vectors, filter_seen=settings.filter_seen, gain=gain
        )
    }
    baselines, left_out = baseline_rankers(data, settings, sessions)
    rankers |= baselines
    if sessions is not None and "sasrec" in settings.baselines:
        rankers["sasrec"] = ids_only_ranker(config, data, sessions)
    if extra_rankers is not None:
        rankers |= extra_rankers(data, queries)
    evaluation = evaluate(
        data,
        queries,
        rankers,
        settings,
        protocol=_protocol(config, data),
        seed=config.training.seed,
        item_vectors=directions_of(items, geometry),
        query_vectors=directions_of(vectors, geometry),
        temperature=float(model.temperature.detach()),
        left_out=left_out,
    )
    evaluation = replace(evaluation, metric=config.training.metric)
    return evaluation, queries, items, vectors


def report_on(
    path: Path,
    config: ExperimentConfig,
    data: Dataset,
    evaluation: Evaluation,
    queries: Queries,
    items: Tensor,
    history: list[dict[str, float]],
    embedding: Diagnosis | None = None,
) -> None:
    """Write the HTML report of an evaluation."""
    write_report(
        path,
        title=_TITLES[config.model.kind],
        config_text=dump_config(config),
        evaluation=evaluation,
        history=history,
        item_titles=item_titles(data),
        item_groups=item_groups(data),
        item_vectors=directions_of(items, config.retrieval.geometry).numpy(),
        examples=examples(data, queries, evaluation),
        facts=data_facts(data),
        embedding=embedding,
    )


def _protocol(config: ExperimentConfig, data: Dataset) -> dict[str, str]:
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


def data_facts(data: Dataset) -> dict[str, str]:
    """Return, in words, how much data there is and what was left out."""
    facts = {
        "interactions": f"{len(data.tables.events):,}",
        "users": f"{data.num_users:,}",
        "items": f"{data.num_items:,}",
        "data fingerprint": data.tables.fingerprint,
    }
    for drop in data.tables.drops:
        facts[f"{drop.table}.{drop.column}: {drop.reason}"] = f"{drop.rows:,} rows ({drop.policy})"
    return facts
