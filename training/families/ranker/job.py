"""Ranking as a job: labelled rows in; a trained ranker evaluated, reported and bundled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from torch import nn

from recsys.bundle.calibration import Calibrator
from recsys.bundle.directory import RUN_BUNDLES
from recsys.bundle.probe import PROBE_ROWS, write_probe
from recsys.bundle.weights import save_weights
from recsys.data.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.embeddings.diagnostics import Diagnosis, FeatureValues
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import read_calibration
from recsys.features.bundle.writing import ModelContents, RowAnswers, write_model
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.encoding.feature_values import block_feature_values
from recsys.training.config.file import dump_config
from recsys.training.engine.loop import Task
from recsys.training.engine.warm_start import kept_optimizer_state, parent_of
from recsys.training.evaluation.results import NothingHeldOut
from recsys.training.explain.explanation import Explanation, explain_rows
from recsys.training.families.chosen import best_epoch, facts_of_final
from recsys.training.families.family import Finished, Given
from recsys.training.families.held_out import nothing_held_out
from recsys.training.families.ranker.baselines import evaluated_baselines, left_out
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.evaluation import (
    Evaluated,
    RankingEvaluation,
    calibrator_of,
    evaluate_ranker,
    evaluation_of,
)
from recsys.training.families.ranker.rows import RankingRows, open_rows, rebatched
from recsys.training.families.ranker.task import ranking_task

DIAGNOSED_ROWS = 2_000_000
"""Training rows that the diagnostics of the embedding look at."""
_IN_PARTS = "{:,} training, {:,} validation and {:,} test rows"


@dataclass(frozen=True)
class RankingJob:
    """What `recsys.training.jobs.train` does with a ranker, step by step."""

    config: RankerExperiment
    rows: RankingRows
    given: Given = Given()

    @property
    def facts(self) -> dict[str, str]:
        """How many rows there are and which were left out, as text."""
        return row_facts(self.rows)

    @property
    def fingerprint(self) -> str:
        """A hash of the data."""
        return self.rows.fingerprint

    def under(self, config: RankerExperiment) -> Self:
        """Return the job on the same encoded rows with other settings of model and training."""
        same = config.training == self.config.training
        rows = self.rows if same else rebatched(config, self.rows)
        return replace(self, config=config, rows=rows)

    @property
    def layouts(self) -> tuple[FeatureLayout, ...]:
        """The sides of the model's embedding."""
        return (self.rows.layout,)

    def task(self) -> Task[RankingBatch]:
        """Return what the loop trains."""
        return ranking_task(self.config, self.rows, self.given.world)

    def feature_values(self) -> list[FeatureValues]:
        """Return the values of each sparse feature in the first `DIAGNOSED_ROWS` training rows."""
        size = 65_536

        def blocks() -> Iterator[FeatureBlock]:
            batches = self.rows.loader.ordered(TRAIN, size)
            yield from (batch.features for batch in islice(batches, -(-DIAGNOSED_ROWS // size)))

        return block_feature_values(self.rows.layout, blocks())

    def finish(
        self,
        run_dir: Path,
        model: nn.Module,
        history: list[dict[str, float]],
        embedding: Diagnosis | None,
    ) -> Finished:
        """Evaluate `model`, write bundle and report."""
        config, chosen = self.config, self.given.chosen
        calibrator = self._calibrator(model)
        evaluation: RankingEvaluation | NothingHeldOut
        explanation = None
        if config.split.evaluated is None:
            evaluation = nothing_held_out(config, chosen, self.rows.rows[TRAIN])
        else:
            own = evaluate_ranker(config, self.rows, model, calibrator)
            evaluation = evaluation_of(config, own, *self._others(run_dir))
            if self.given.report:
                explanation = explain_rows(config, self.rows, model, calibrator)
        bundle = write_ranker(
            run_dir / RUN_BUNDLES,
            config,
            self.rows,
            model,
            calibrator,
            evaluation,
            parent_of(self.given.earlier)
            | best_epoch(history, config.training.metric)
            | facts_of_final(config, chosen),
        )
        report = run_dir / "report.html"
        if self.given.report:
            report_on_ranker(report, config, self.rows, evaluation, history, embedding, explanation)
        return Finished(evaluation, bundle, report)

    def _calibrator(self, model: nn.Module) -> Calibrator:
        """Return what makes probabilities of logits: that of the model whose training chose.

        What undoes the sampling of the training rows is that of this training.
        """
        chosen = self.given.chosen
        if chosen is None:
            return calibrator_of(self.config, self.rows, model)
        found = read_calibration(chosen.bundle, Calibrator)
        assert found is not None, "a ranker has a calibrator"
        return replace(found, offset=self.rows.logit_offset)

    def _others(self, run_dir: Path) -> tuple[list[Evaluated], dict[str, str]]:
        """Return the rankers to compare with, and which are missing and why."""
        world = self.given.world
        if world.size > 1:
            return [], {"other rankers": "left out, as several processes trained the model"}
        others = evaluated_baselines(self.config, self.rows, world, run_dir)
        return list(others), left_out(self.config)


def open_ranking(config: RankerExperiment, given: Given) -> RankingJob:
    """Read the tables of `config`, or encode its click log to disk once and open it."""
    encoder = None if given.earlier is None else given.earlier.encoder
    return RankingJob(config, open_rows(config, given.world, encoder), given)


def row_facts(rows: RankingRows) -> dict[str, str]:
    """Describe how many rows there are and which were left out."""
    counts = [rows.rows[part] for part in (TRAIN, VALIDATION, TEST)]
    facts = {"rows": _IN_PARTS.format(*counts)}
    for place, name in enumerate(rows.schema.interactions.outcome_names):
        facts[f"outcome {name} is known of"] = _IN_PARTS.format(*(n[place] for n in rows.known))
    for drop in rows.drops:
        facts[f"{drop.table}.{drop.column}: {drop.reason}"] = f"{drop.rows:,} rows ({drop.policy})"
    return {**facts, "data fingerprint": rows.fingerprint}


def report_on_ranker(
    path: Path,
    config: RankerExperiment,
    rows: RankingRows,
    evaluation: RankingEvaluation | NothingHeldOut,
    history: Sequence[Mapping[str, float]] = (),
    embedding: Diagnosis | None = None,
    explanation: Explanation | None = None,
) -> None:
    """Write the HTML report of an evaluation."""
    from recsys.training.reports.ranking import write_ranking_report
    from recsys.training.reports.unmeasured import write_unmeasured_report

    shown: dict[str, Any] = {
        "title": f"Ranking: {config.model.kind}",
        "config_text": dump_config(config),
        "history": history,
        "facts": {**evaluation.protocol, **row_facts(rows)},
        "embedding": embedding,
    }
    if isinstance(evaluation, NothingHeldOut):
        write_unmeasured_report(path, evaluation=evaluation, **shown)
    else:
        write_ranking_report(path, evaluation=evaluation, explanation=explanation, **shown)


def write_ranker(
    parent: Path,
    config: RankerExperiment,
    rows: RankingRows,
    model: nn.Module,
    calibrator: Calibrator,
    evaluation: RankingEvaluation | NothingHeldOut,
    origin: Mapping[str, str],
) -> Path:
    """Write the bundle of `model` below `parent` and return its folder.

    origin: facts on where its weights and its settings come from.
    """
    probe = next(iter(rows.loader.ordered(config.split.parts[-1], PROBE_ROWS)))
    contents = ModelContents(
        description=ModelDescription(
            model=config.model,
            embedding=config.embedding,
            policies=config.policies,
            layouts=(rows.layout,),
        ),
        encoder=rows.encoder,
        weights=save_weights(model),
        answers=RowAnswers(write_probe(model, probe.features)),
        config=dump_config(config),
        metrics=evaluation.kept(),
        fingerprint=rows.fingerprint,
        calibration=calibrator,
        optimizer_state=kept_optimizer_state(config, model),
        origin=origin,
    )
    return write_model(parent, contents)
