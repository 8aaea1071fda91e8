"""A plain model as a job: a data set in; a fitted model evaluated, reported and bundled."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from recsys.bundle.directory import RUN_BUNDLES
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import write_weights
from recsys.features.bundle.request_probe import with_answers
from recsys.features.bundle.searching import PlainSearch, Search, items_of
from recsys.features.bundle.writing import ListAnswers, ModelContents, write_model
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import VALIDATION
from recsys.plain.answering import MovedModel, PlainModel
from recsys.plain.registry import PLAIN, fit_plain
from recsys.training.config.file import dump_config
from recsys.training.evaluation.evaluate import Ranker, evaluate, ranking_metrics
from recsys.training.evaluation.results import Evaluation, NothingHeldOut
from recsys.training.families.chosen import facts_of_final
from recsys.training.families.family import Finished, Given
from recsys.training.families.golden import PROBE_K, golden_requests
from recsys.training.families.held_out import nothing_held_out
from recsys.training.families.list_evaluation import (
    ListReport,
    data_facts,
    protocol_of,
    with_fallbacks,
    write_list_report,
)
from recsys.training.families.loading import load_data
from recsys.training.families.opened import OpenedModel
from recsys.training.families.plain.choose import baseline_rankers, check_baselines, popular_first
from recsys.training.families.plain.config import PlainExperiment
from recsys.training.families.plain.fallback import PlainRanker
from recsys.training.families.plain.fitting import check_rows, refuse_unfit
from recsys.training.families.plain.reading import PlainData
from recsys.training.families.plain.rows import counted
from recsys.training.families.recounting import NewLog, Renewed

LOG = logging.getLogger(__name__)
TITLE = "Plain model"


@dataclass(frozen=True)
class PlainJob:
    """See `recsys.training.families.family.FittedJob`."""

    reading: PlainData
    given: Given

    @property
    def config(self) -> PlainExperiment:
        """The experiment."""
        return self.reading.config

    @property
    def facts(self) -> dict[str, str]:
        """How much data there is and what was left out, as text."""
        return data_facts(self.reading.data)

    @property
    def fingerprint(self) -> str:
        """A hash of the data."""
        return self.reading.data.tables.fingerprint

    def under(self, config: Any) -> Self:
        """Return the job on the same data with other settings of the model."""
        return replace(self, reading=self.reading.under(config))

    def fit(self, run_dir: Path) -> PlainModel:
        """Return the model, fitted on the training rows.

        Raises:
            ConfigError: it cannot be, on such rows and this machine.
        """
        return _fitted(self.config, self.reading.data, self.reading.sessions)

    def validate(self, model: PlainModel) -> dict[str, float]:
        """Return the metrics on the validation queries; none where there are none."""
        reading, config = self.reading, self.config
        if config.split.trains_on_validation:
            return {}
        queries = reading.queries(VALIDATION, config.training.max_validation_queries)
        settings = config.evaluation
        top = reading.ranker(model)(queries, max(settings.ks))
        found = ranking_metrics(top, queries.relevant, settings.ks)
        return {name: float(values.mean()) for name, values in found.items()}

    def finish(self, run_dir: Path, model: PlainModel) -> Finished:
        """Evaluate `model`, write bundle and report."""
        evaluation: Evaluation | NothingHeldOut
        if self.config.split.evaluated is None:
            rows = int(self.reading.data.train_counts.sum())
            evaluation, queries = nothing_held_out(self.config, self.given.chosen, rows), None
        else:
            evaluation, queries = _evaluated(self.reading, model, self.given)
        origin = facts_of_final(self.config, self.given.chosen)
        bundle = _write(run_dir / RUN_BUNDLES, self.reading, model, evaluation, origin)
        report = run_dir / "report.html"
        if self.given.report:
            about = ListReport(self.config, self.reading.data, evaluation, queries)
            write_list_report(report, TITLE, about)
        return Finished(evaluation, bundle, report)


def refitted(opened: OpenedModel, _search: Search, log: NewLog) -> Renewed:
    """Return the model fitted anew on a newer log.

    Raises:
        ConfigError: it cannot be, on such rows and this machine.
    """
    model = _fitted(opened.config, log.data, log.sessions)

    def write(folder: Path) -> None:
        write_weights(folder, model.to_bytes())

    return Renewed(PlainSearch(model), write, {})


def _fitted(config: PlainExperiment, data: Dataset, sessions: Sessions | None) -> PlainModel:
    """Return the model, fitted on the training rows of `data`."""
    kind = PLAIN[config.model.kind]
    rows = counted(data, sessions, attributes=kind.reads_attributes)
    refuse_unfit(config, rows)
    popular = popular_first(rows, config.evaluation.popularity_window_days)
    return PlainModel.of(kind, fit_plain(config.model, rows), popular)


def open_plain(config: PlainExperiment, given: Given) -> PlainJob:
    """Read and encode the tables of `config`, from its cache where it has one.

    Raises:
        ConfigError: the model cannot be fitted on them, or nobody can be asked.
    """
    data = load_data(config)
    check_rows(config, data.tables, data.part)
    return PlainJob(PlainData.of(config, data), given)


def evaluate_opened(opened: OpenedModel, report: Path) -> Evaluation:
    """Evaluate an opened model on its own split of the data, and write `report`.

    Raises:
        ConfigError: a baseline is not available, or the catalogue is not that of the model.
    """
    config: PlainExperiment = opened.config
    check_baselines(config)
    reading = PlainData.of(config, opened.data())
    evaluation, queries = _evaluated(reading, model_on(opened, reading.data))
    write_list_report(report, TITLE, ListReport(config, reading.data, evaluation, queries))
    return evaluation


def model_on(opened: OpenedModel, data: Dataset) -> PlainModel | MovedModel:
    """Return the model of a bundle, asked about the catalogue of `data`."""
    model, own = opened.plain_model(), opened.own_rows(data)
    if np.array_equal(own, np.arange(model.num_items)):
        return model
    return MovedModel(model, own)


def _evaluated(
    reading: PlainData, model: PlainModel | MovedModel, given: Given | None = None
) -> tuple[Evaluation, Queries]:
    config, data = reading.config, reading.data
    settings, part = config.evaluation, config.split.evaluated
    assert part is not None, "rows are held out"
    queries = reading.queries(part, settings.max_queries)
    own: dict[str, PlainRanker] = {config.model.kind: reading.ranker(model)}
    baselines, left_out = baseline_rankers(data, settings, reading.sessions, (config.model,))
    plain = {**baselines, **own}  # a baseline of the same name is another one of its kind
    plain = {name: plain[name] for name in [*own, *(n for n in plain if n not in own)]}
    rankers: dict[str, Ranker] = dict(plain)
    given = given or Given()
    if given.extra_rankers is not None:
        rankers |= given.extra_rankers(data, queries, filter_seen=settings.filter_seen)
    evaluation = evaluate(
        data,
        queries,
        rankers,
        settings,
        protocol=protocol_of(config, data),
        seed=config.training.seed,
        left_out=left_out,
        part=part,
        of_source=given.is_source,
    )
    evaluation = with_fallbacks(evaluation, plain, queries)
    return replace(evaluation, metric=config.training.metric), queries


def _write(
    parent: Path,
    reading: PlainData,
    model: PlainModel,
    evaluation: Evaluation | NothingHeldOut,
    origin: Mapping[str, str],
) -> Path:
    """Write the bundle of `model` below `parent` and return its folder; origin: facts on it."""
    config, data = reading.config, reading.data
    weights = model.to_bytes()
    # The served model, read back from the bytes that are written: what is probed is what is kept.
    served = PlainModel.from_bytes(config.model, weights)
    asked = golden_requests(
        data,
        reading.sessions,
        history_length=config.model.history_length,
        policies=config.policies,
    )
    top = served.top(items_of(asked.encoded.history), PROBE_K, exclude=asked.encoded.seen)
    described = ModelDescription(
        model=config.model,
        embedding=None,
        policies=config.policies,
        layouts=(),
        sessions=config.sessions,
        filter_seen=config.evaluation.filter_seen,
    )
    contents = ModelContents(
        description=described,
        encoder=data.encoder,
        weights=weights,
        answers=ListAnswers(
            items=data.tables.items,
            train_counts=data.train_counts,
            probe=with_answers(asked.table, asked.item_ids, top.scores, top.rows),
        ),
        config=dump_config(config),
        metrics=evaluation.kept(),
        fingerprint=data.tables.fingerprint,
        origin=origin,
    )
    return write_model(parent, contents)
