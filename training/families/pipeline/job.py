"""A pipeline as a job: sources trained twice, what joins them learnt in between.

What joins and ranks learns on a later stretch of the log than its sources: on the validation rows,
with the candidates that sources trained on the rows before them really name. Then the sources are
trained again on all rows before the test part, for as many epochs as the validation rows chose.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from recsys.bundle.directory import RUN_BUNDLES
from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import source_folders
from recsys.features.bundle.lists import ListModel, first_vectors
from recsys.features.bundle.model_bundle import layouts_of
from recsys.features.bundle.request_probe import with_answers
from recsys.features.bundle.writing import ListAnswers, ModelContents, write_model
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.pipeline.fusing import ByRank
from recsys.features.pipeline.model import JoinedModel
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.rules import Rules
from recsys.features.pipeline.searching import PipelineSearch
from recsys.pipeline.rules import doubts
from recsys.plain.kind import PlainConfig
from recsys.plain.registry import PLAIN
from recsys.training.config.file import dump_config
from recsys.training.evaluation.evaluate import ExtraRankers, Ranker, evaluate, ranking_metrics
from recsys.training.evaluation.results import (
    SOURCE,
    WITHOUT_RANKER,
    WITHOUT_RULES,
    Evaluation,
    NothingHeldOut,
)
from recsys.training.families.chosen import facts_of_final
from recsys.training.families.family import Finished, Given
from recsys.training.families.golden import PROBE_K, spread_users
from recsys.training.families.held_out import nothing_held_out
from recsys.training.families.list_evaluation import (
    ListReport,
    data_facts,
    protocol_of,
    with_fallbacks,
    write_list_report,
)
from recsys.training.families.loading import load_data
from recsys.training.families.pipeline.all_rows import as_served
from recsys.training.families.pipeline.asking import (
    Asking,
    StageRanker,
    candidates_with_hits,
    fused,
    one_source,
    reached,
    whole,
)
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.fitting import check_rows
from recsys.training.families.pipeline.learning import facts_of, learnt, new_items
from recsys.training.families.pipeline.ranking import relations_of, train_ranker
from recsys.training.families.pipeline.sources import TrainedSources, train_sources
from recsys.training.families.pipeline.trained import trained_sources
from recsys.training.families.plain.choose import baseline_rankers

LOG = logging.getLogger(__name__)
TITLE = "Pipeline"


@dataclass(frozen=True)
class FittedPipeline:
    """Sources as they are served, what joins them, and how it did on the validation requests.

    data: all rows that the sources are trained on, encoded for what joins. reached: (S,) share of
    the relevant items that each source named, and that all of them did; None: another pipeline's
    training learnt to join them.
    """

    data: Dataset
    sources: TrainedSources
    joined: JoinedModel
    metrics: dict[str, float]
    reached: tuple[tuple[float, ...], float] | None


@dataclass(frozen=True)
class PipelineJob:
    """See `recsys.training.families.family.FittedJob`."""

    config: PipelineExperiment
    data: Dataset
    given: Given

    @property
    def facts(self) -> dict[str, str]:
        """How much data there is and what was left out, as text."""
        return data_facts(self.data)

    @property
    def fingerprint(self) -> str:
        """A hash of the data."""
        return self.data.tables.fingerprint

    def under(self, config: Any) -> Self:
        """Return the job on the same data with other settings."""
        return replace(self, config=config)

    def fit(self, run_dir: Path) -> FittedPipeline:
        """Train the sources, learn to join what they name, and train them again."""
        config, train = self.config, self.given.train
        assert train is not None, "a pipeline trains other models"
        chosen = self.given.chosen
        if chosen is not None:
            earlier = TrainedSources.of(source_folders(chosen.bundle))
            last = train_sources(config, run_dir, train, earlier)
            before = ListModel.open(chosen.bundle.path)
            assert isinstance(before.found_by, PipelineSearch)
            data = as_served(self.data, before.encoder)
            known = before.found_by.with_relations(relations_of(config))
            joined = self._on_all_rows(known.joined, data)
            return FittedPipeline(data, last, joined, {}, None)
        queries = self._queries(VALIDATION, config.training.max_validation_queries)
        first = train_sources(config, run_dir, train)
        search = search_of(config, self.data, first)
        asking = Asking.before(config, self.data, VALIDATION)
        labelled = candidates_with_hits(asking, search, queries)
        ranker = partial(train_ranker, config, self.data, run_dir, train)
        joined, metrics = learnt(config, self.data, labelled, queries, ranker)
        search = replace(search, joined=joined)
        if not metrics:
            top = StageRanker(asking, search, whole)(queries, max(config.evaluation.ks))
            found = ranking_metrics(top, queries.relevant, config.evaluation.ks)
            metrics = {name: float(values.mean()) for name, values in found.items()}
        of_each, of_all = reached(labelled, queries)
        last = train_sources(config, run_dir, train, first)
        data = as_served(self.data, self.data.encoder)
        joined = self._on_all_rows(joined, data)
        return FittedPipeline(data, last, joined, metrics, (tuple(of_each.tolist()), of_all))

    def _on_all_rows(self, joined: JoinedModel, data: Dataset) -> JoinedModel:
        """Return what joins sources, for items as frequent, and as new, as all trained rows say."""
        ranker = joined.ranker
        if isinstance(ranker, RowRanker):
            ranker = ranker.among(data.tables.items, data.encoder.reference_time)
        facts, new = facts_of(data), new_items(self.config, data)
        return replace(joined, facts=facts, new=new, ranker=ranker)

    def validate(self, model: FittedPipeline) -> dict[str, float]:
        """Return the metrics on the validation requests that were held out of joining."""
        return model.metrics

    def finish(self, run_dir: Path, model: FittedPipeline) -> Finished:
        """Evaluate the pipeline stage by stage, write bundle and report."""
        data = model.data
        search = replace(
            search_of(self.config, data, model.sources),
            joined=model.joined,
            rules=rules_of(self.config, data, model.sources),
        )
        evaluation: Evaluation | NothingHeldOut
        queries = None
        if self.config.split.evaluated is None:
            rows, found = int(data.train_counts.sum()), model.metrics
            evaluation = nothing_held_out(self.config, self.given.chosen, rows, validation=found)
        else:
            queries = self._queries(TEST, self.config.evaluation.max_queries)
            evaluation = evaluated(self.config, data, search, queries, self.given.extra_rankers)
        if model.reached is not None:
            words = _in_words(self.config, model.reached)
            evaluation = replace(evaluation, protocol={**evaluation.protocol, "candidates": words})
        bundle = self._write(run_dir / RUN_BUNDLES, data, model, search, evaluation)
        report = run_dir / "report.html"
        if self.given.report:
            write_list_report(report, TITLE, ListReport(self.config, data, evaluation, queries))
        return Finished(evaluation, bundle, report)

    def _queries(self, part: int, limit: int) -> Queries:
        return queries_of(self.config, self.data, part, limit)

    def _write(
        self,
        parent: Path,
        data: Dataset,
        model: FittedPipeline,
        search: PipelineSearch,
        evaluation: Evaluation | NothingHeldOut,
    ) -> Path:
        """Write the bundle of the pipeline below `parent` and return its folder."""
        config = self.config
        weights = model.joined.to_bytes()
        joined = JoinedModel.from_bytes(config.model, weights)
        own = model.joined.ranker if isinstance(model.joined.ranker, RowRanker) else None
        if own is not None:
            joined = replace(joined, ranker=own.with_relations(None))
        served = replace(search, joined=joined)
        asking = Asking.before(config, data, TEST + 1)
        table, requests = asking.as_served(
            spread_users(data), served, None if own is None else own.windows.relations
        )
        found = served(requests, PROBE_K, exclude=requests.seen, exact=True)
        ids = data.tables.items.column(data.schema.item_key).combine_chunks()
        described = ModelDescription(
            model=config.model,
            embedding=None,
            policies=config.policies,
            layouts=layouts_of(data.encoder, config.model.kind),
            filter_seen=config.evaluation.filter_seen,
            k=config.k,
        )
        contents = ModelContents(
            description=described,
            encoder=data.encoder,
            weights=weights,
            answers=ListAnswers(
                items=data.tables.items,
                train_counts=data.train_counts,
                probe=with_answers(table, ids, found.scores, found.rows),
                sources=model.sources.bundles,
                ranker=None if own is None else own.model.bundle.path,
            ),
            config=dump_config(config),
            metrics=evaluation.kept(),
            fingerprint=data.tables.fingerprint,
            origin=facts_of_final(config, self.given.chosen),
        )
        return write_model(parent, contents)


def open_pipeline(config: PipelineExperiment, given: Given) -> PipelineJob:
    """Read and encode the tables of `config`, from its cache where it has one.

    Raises:
        ConfigError: the filter or a rule does not fit the items, there is too little to learn
            from, or a source cannot be trained on the log; nothing is trained then.
    """
    data = load_data(config)
    check_rows(config, data.tables, data.part)
    for line in doubts(config.model.rules):
        LOG.warning(line)
    return PipelineJob(config, data, given)


def evaluated(
    config: PipelineExperiment,
    data: Dataset,
    search: PipelineSearch,
    queries: Queries,
    extra_rankers: ExtraRankers | None = None,
) -> Evaluation:
    """Evaluate a pipeline, its stages, its sources and plain models on the same queries.

    data: with the validation rows among the training rows, on which all of them are trained.
    """
    settings = config.evaluation
    asking = Asking.before(config, data, TEST)
    stage = partial(StageRanker, asking=asking, search=search)
    rankers: dict[str, Ranker] = {config.model.kind: stage(answer=whole)}
    if search.rules is not None:
        rankers[WITHOUT_RULES] = stage(answer=whole, search=replace(search, rules=None))
    if search.joined.ranker is not None:
        rankers[WITHOUT_RANKER] = stage(answer=fused)
    for number, name in enumerate(search.names):
        rankers[f"{SOURCE}{name}"] = stage(answer=one_source(number))
    baselines, left_out = baseline_rankers(data, settings, own=_plain_sources(config))
    rankers |= baselines
    if extra_rankers is not None:
        rankers |= extra_rankers(data, queries, filter_seen=settings.filter_seen)
    protocol = protocol_of(config, data)
    protocol["split"] += "; sources and plain models are fitted on training and validation rows"
    for name, path in trained_sources(config).items():
        protocol["split"] += f" ({name} is model {path.name}, as it was trained, on training rows)"
    if config.model.filter is not None:
        protocol["filter"] = f"{config.model.filter} (of the pipeline and its sources alone)"
    evaluation = evaluate(
        data,
        queries,
        rankers,
        settings,
        protocol=protocol,
        seed=config.training.seed,
        left_out=left_out,
    )
    evaluation = with_fallbacks(evaluation, baselines, queries)
    return replace(evaluation, metric=config.training.metric)


def _plain_sources(config: PipelineExperiment) -> list[PlainConfig]:
    """Return the settings of the sources that are plain models of whole histories."""
    found: list[PlainConfig] = []
    for source in config.model.sources:
        if isinstance(source.model, dict) and source.sessions is None:
            kind = PLAIN.get(str(source.model.get("kind")))
            if kind is not None:
                found.append(parse(kind.config, source.model, source="source"))
    return found


def queries_of(config: PipelineExperiment, data: Dataset, part: int, limit: int) -> Queries:
    """Return one query a user of the part, at most `limit`."""
    return build_queries(
        data,
        part,
        history_length=config.model.history_length,
        filter_seen=config.evaluation.filter_seen,
        limit=limit,
        seed=config.training.seed,
    )


def search_of(config: PipelineExperiment, data: Dataset, sources: TrainedSources) -> PipelineSearch:
    """Return what asks sources, and joins what they name by their ranks.

    Raises:
        ConfigError: a source knows other items.
    """
    settings = config.model
    ids = data.tables.items.column(data.schema.item_key).combine_chunks()
    for name, source in zip(settings.names, sources.models, strict=True):
        if not source.item_ids.equals(ids):
            raise ConfigError(
                f"model.sources: {name}: it was trained on other items than these data have: train "
                "it on these data, or write its settings in place of its name"
            )
    joined = JoinedModel(ByRank(60.0), facts_of(data), new_items(config, data), None, 0)
    return PipelineSearch(
        names=settings.names,
        sources=sources.models,
        takes=tuple(source.take for source in settings.sources),
        only_new=tuple(source.new_items is not None for source in settings.sources),
        joined=joined,
    )


def rules_of(config: PipelineExperiment, data: Dataset, sources: TrainedSources) -> Rules | None:
    """Return the rules of the lists, looked up in the items; None: there are none.

    Raises:
        RuleError: a rule does not fit the items.
    """
    if not config.model.rules:
        return None
    columns = CatalogueColumns(data.schema, lambda: data.tables.items)
    return Rules.compiled(
        config.model.rules, columns, data.num_items, first_vectors(sources.models)
    )


def _in_words(config: PipelineExperiment, found: tuple[tuple[float, ...], float]) -> str:
    of_each = ", ".join(
        f"{name} {share:.1%} of the relevant items in {source.take:,}"
        for name, share, source in zip(
            config.model.names, found[0], config.model.sources, strict=True
        )
    )
    return f"{of_each}; all of them {found[1]:.1%} (validation requests)"
