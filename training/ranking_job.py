"""Ranking as a job: labelled rows in; a trained ranker judged, reported and bundled."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from torch import nn

from features.feature_values import block_feature_values
from features.split import TEST, TRAIN, VALIDATION
from recsys.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.bundle import write_bundle
from recsys.embeddings.diagnostics import Diagnosis, FeatureValues
from recsys.metrics.classification import (
    Calibration,
    Interval,
    calibration,
    intervals,
)
from recsys.weights import save_optimizer_state, save_weights
from training.config import ExperimentConfig, dump_config
from training.distributed import World
from training.loop import Task
from training.ranking_report import write_ranking_report
from training.ranking_rows import RankingRows, open_rows
from training.ranking_task import Predictions, predictions, ranking_task, table_in
from training.warm_start import OPTIMIZER_FILE, Earlier, parent_of

DIAGNOSED_ROWS = 2_000_000
"""Training rows that the diagnostics of the embedding look at."""


@dataclass(frozen=True)
class RankingEvaluation:
    """How a ranker did on the test rows.

    metrics: "auc", "log_loss", with intervals over rows. base_rate: the log loss of always
    predicting the share of positives, which knows nothing of the features.
    """

    protocol: dict[str, str]
    metrics: dict[str, Interval]
    base_rate: float
    calibration: Calibration

    def flat(self) -> dict[str, float]:
        """Return the metrics as name -> value."""
        found = {name: interval.value for name, interval in self.metrics.items()}
        found["base_rate_log_loss"] = self.base_rate
        return {**found, "calibration_error": self.calibration.error}


class RankingJob:
    """What `training.train` does with a ranker, step by step."""

    def __init__(
        self, config: ExperimentConfig, world: World, earlier: Earlier | None = None
    ) -> None:
        self.config, self.world, self.earlier = config, world, earlier
        self.rows = open_rows(config, world, None if earlier is None else earlier.encoder)
        self.fingerprint = self.rows.fingerprint
        self.facts = row_facts(self.rows)

    @property
    def layouts(self) -> tuple[FeatureLayout, ...]:
        """The sides of the model's embedding."""
        return (self.rows.layout,)

    def task(self) -> Task[RankingBatch]:
        """Return what the loop trains."""
        return ranking_task(self.config, self.rows, self.world)

    def feature_values(self) -> list[FeatureValues]:
        """Return what the first `DIAGNOSED_ROWS` training rows hold of each sparse feature."""
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
    ) -> tuple[RankingEvaluation, Path, Path]:
        """Judge `model`, write bundle and report; return the evaluation and both paths."""
        evaluation = judge(self.config, self.rows, model)
        bundle = write_ranker(
            run_dir / "bundle", self.config, self.rows, model, evaluation, parent_of(self.earlier)
        )
        report = run_dir / "report.html"
        report_on_ranker(report, self.config, self.rows, evaluation, history, embedding)
        return evaluation, bundle, report


def row_facts(rows: RankingRows) -> dict[str, str]:
    """Return, in words, how many rows there are and which were left out."""
    counts = [rows.rows[part] for part in (TRAIN, VALIDATION, TEST)]
    facts = {"rows": "{:,} training, {:,} validation and {:,} test rows".format(*counts)}
    for drop in rows.drops:
        facts[f"{drop.table}.{drop.column}: {drop.reason}"] = f"{drop.rows:,} rows ({drop.policy})"
    return {**facts, "data fingerprint": rows.fingerprint}


def report_on_ranker(
    path: Path,
    config: ExperimentConfig,
    rows: RankingRows,
    evaluation: RankingEvaluation,
    history: Sequence[Mapping[str, float]] = (),
    embedding: Diagnosis | None = None,
) -> None:
    """Write the HTML report of an evaluation."""
    write_ranking_report(
        path,
        title=f"Ranking: {config.model.kind}",
        config_text=dump_config(config),
        metrics=evaluation.metrics,
        base_rate=evaluation.base_rate,
        calibration=evaluation.calibration,
        history=history,
        facts={**evaluation.protocol, **row_facts(rows)},
        embedding=embedding,
    )


def judge(config: ExperimentConfig, rows: RankingRows, model: nn.Module) -> RankingEvaluation:
    """Evaluate `model`, whole in this process, on the test rows."""
    found: Predictions = predictions(model, rows, TEST, config.training.batch_size, World())
    probability = found.probability
    share = float(np.average(found.label, weights=found.weight))
    share = min(max(share, 1e-7), 1 - 1e-7)
    return RankingEvaluation(
        protocol={
            "split": _WORDS[config.split.kind],
            "test rows": f"{len(found.label):,}, {share:.1%} of them positive",
        },
        metrics=intervals(
            probability,
            found.label,
            found.weight,
            samples=min(config.evaluation.bootstrap_samples, 200),
            seed=config.training.seed,
        ),
        base_rate=float(-share * np.log(share) - (1 - share) * np.log(1 - share)),
        calibration=calibration(probability, found.label),
    )


def write_ranker(
    parent: Path,
    config: ExperimentConfig,
    rows: RankingRows,
    model: nn.Module,
    evaluation: RankingEvaluation,
    origin: Mapping[str, str],
) -> Path:
    """Write the bundle of `model` below `parent` and return its folder.

    origin: facts on the model that the training started from.
    """
    metrics = {"test": evaluation.flat()}

    def write(folder: Path) -> None:
        (folder / "config.yaml").write_text(dump_config(config))
        (folder / "schema.json").write_text(rows.schema.model_dump_json(indent=1))
        described = {
            "kind": config.model.kind,
            "model": config.model.model_dump(mode="json"),
            "embedding": config.embedding.model_dump(mode="json"),
            "policies": config.policies.model_dump(mode="json"),
            "layouts": [asdict(rows.layout)],
        }
        (folder / "model.json").write_text(json.dumps(described, indent=1))
        rows.encoder.save(folder / "encoder")
        (folder / "weights.safetensors").write_bytes(save_weights(model))
        if config.keep_optimizer_state:
            (folder / OPTIMIZER_FILE).write_bytes(save_optimizer_state(table_in(model)))
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True))

    facts = {
        "kind": config.model.kind,
        "data_fingerprint": rows.fingerprint,
        "config_sha256": hashlib.sha256(dump_config(config).encode()).hexdigest(),
        "metrics": metrics,
        **origin,
    }
    return write_bundle(parent, write, facts=facts)


_WORDS = {
    "time": "by time: training before validation before test",
    "leave_one_out": "leave one out, each user's last row",
    "column": "given by a column",
}
