"""Retrieval as a job: a data set in; a trained model evaluated, reported and bundled."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from recsys.bundle.directory import RUN_BUNDLES
from recsys.bundle.pair_calibration import InteractionProbability
from recsys.data.batch import FeatureLayout
from recsys.embeddings.diagnostics import Diagnosis, FeatureValues
from recsys.features.bundle.files import read_calibration
from recsys.features.dataset.dataset import continued
from recsys.features.dataset.split import VALIDATION
from recsys.features.encoding.feature_values import dataset_feature_values
from recsys.models.retrieval import RetrievalModel
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.engine.loop import Task
from recsys.training.engine.warm_start import parent_of
from recsys.training.evaluation.collapse import collapse_warning
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.chosen import best_epoch, facts_of_final
from recsys.training.families.family import Finished, Given
from recsys.training.families.list_evaluation import data_facts
from recsys.training.families.loading import load_data
from recsys.training.families.retrieval.contents import Beside, write_retrieval
from recsys.training.families.retrieval.evaluating import evaluate_model, report_on, unmeasured
from recsys.training.families.retrieval.meeting import EarlierIndex, Met
from recsys.training.families.retrieval.memory import fit_memory
from recsys.training.families.retrieval.reading import Read, RetrievalData
from recsys.training.families.retrieval.relevance import fit_relevance


@dataclass(frozen=True)
class RetrievalJob:
    """What `recsys.training.jobs.train` does with a model that retrieves, step by step.

    title: of the report. earlier: the item index that the model is to meet, if it is.
    """

    title: str
    reading: RetrievalData
    given: Given
    earlier: EarlierIndex | None = None

    @property
    def config(self) -> RetrievalExperiment:
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

    @property
    def layouts(self) -> tuple[FeatureLayout, ...]:
        """The sides of the model's embedding."""
        of_steps = self.reading.sessions is not None
        return self.reading.data.encoder.retrieval_layouts(of_steps=of_steps)

    def under(self, config: Any) -> Self:
        """Return the job on the same data with other settings of the model and its training."""
        return replace(self, reading=self.reading.under(config))

    def task(self) -> Task[Any]:
        """Return what the loop trains."""
        config = self.config
        validation = self.reading.queries(VALIDATION, config.training.max_validation_queries)
        return self.reading.task(validation, self.given.world)

    def feature_values(self) -> list[FeatureValues]:
        """Return the values of each sparse feature in the training rows."""
        return dataset_feature_values(self.reading.data)

    def finish(
        self,
        run_dir: Path,
        model: RetrievalModel,
        history: list[dict[str, float]],
        embedding: Diagnosis | None,
    ) -> Finished:
        """Evaluate `model`, write bundle and report."""
        reading, given = self.reading, self.given
        if self.earlier is not None:
            self.earlier.rotate(model, reading.data)
        fitted = fit_memory(reading, model)
        memory = None if fitted is None else fitted.memory
        ends = fit_relevance(reading, model, memory, given.chosen)
        probability = self._probability(model)
        if self.config.split.evaluated is None:
            evaluated = unmeasured(reading, model, given.chosen)
        else:
            evaluated = evaluate_model(reading, model, fitted, given, ends)
        evaluation = evaluated.evaluation
        if probability is not None and isinstance(evaluation, Evaluation):
            found = reading.probability_metrics(model, probability)
            evaluation = replace(evaluation, probability=found)
            evaluated = replace(evaluated, evaluation=evaluation)
        met = self._met(model)
        if met is not None:
            evaluation = met.said_in(evaluation)
            evaluated = replace(evaluated, evaluation=evaluation)
        bundle = write_retrieval(
            run_dir / RUN_BUNDLES,
            reading,
            model,
            query_vectors=evaluated.query_vectors,
            metrics=evaluation.kept(),
            origin=parent_of(given.earlier)
            | best_epoch(history, self.config.training.metric)
            | facts_of_final(self.config, given.chosen),
            beside=Beside(
                probability,
                memory,
                None if ends is None else ends.relevance,
                () if met is None else met.claimed,
            ),
        )
        report = run_dir / "report.html"
        if given.report:
            report_on(report, self.title, reading, evaluated, history, embedding)
        seen: list[Mapping[str, float]] = [*history]
        if isinstance(evaluation, Evaluation):
            seen.append(evaluation.representation)
        alarm = collapse_warning(seen, self.config.model.dim, len(reading.data.train_counts))
        warnings = (alarm, None if met is None else met.warning)
        return Finished(evaluation, bundle, report, tuple(one for one in warnings if one))

    def _met(self, model: RetrievalModel) -> Met | None:
        """Return what came of meeting the earlier model, once the model is rotated onto it."""
        if self.earlier is None:
            return None
        part = self.config.split.evaluated
        if part is None:
            return self.earlier.as_chosen(self.given.chosen)
        return self.earlier.meet(self.reading, model, part)

    def _probability(self, model: RetrievalModel) -> InteractionProbability | None:
        """Return what makes probabilities of scores: that of the model whose training chose."""
        chosen = self.given.chosen
        if chosen is None:
            return self.reading.probability(model)
        return read_calibration(chosen.bundle, InteractionProbability)


def open_retrieval(
    title: str, read: Read, config: RetrievalExperiment, given: Given
) -> RetrievalJob:
    """Read and encode the tables of `config`, from its cache where it has one.

    Raises:
        ConfigError, DataError: a part has too little to train, to stop or to evaluate by.
    """
    encoder = None if given.earlier is None else given.earlier.encoder
    with given.world.first_before_others(config.cache is not None):
        data = continued(load_data(config), encoder)
    reading = read(config, data)
    reading.check()
    earlier = None if given.meets is None else EarlierIndex.of(given.meets, reading, read)
    return RetrievalJob(title, reading, given, earlier)
