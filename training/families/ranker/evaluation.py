"""Results of rankers on labelled test rows: the model, and those trained to compare it with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from recsys.bundle.calibration import Calibrator
from recsys.features.batches.negatives import EVALUATION_NEGATIVES
from recsys.features.bundle import measured
from recsys.features.bundle.measured import Kept
from recsys.features.dataset.split import PART_NAMES, TEST, VALIDATION
from recsys.metrics.classification import (
    Calibration,
    Interval,
    calibration,
    interval_of,
    resampled,
)
from recsys.metrics.grouped import GroupedRows, weighted_interval
from recsys.training.engine.ranks import World
from recsys.training.evaluation.results import Shown
from recsys.training.families.held_out import ALL_ROWS, ON_VALIDATION
from recsys.training.families.ranker.calibrating import fit_calibrator
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import Predictions, predictions

if TYPE_CHECKING:
    import pandas as pd

MOST_SAMPLES = 200
"""Bootstrap samples at most: each one sorts nothing, but passes over all test rows."""
NDCG_K = 10
SPLITS = {
    "time": "by time: training before validation before test",
    "leave_one_out": "leave one out, each user's last row",
    "column": "given by a column",
    "none": ALL_ROWS,
}


@dataclass(frozen=True)
class OutcomeResult:
    """How a ranker predicts an outcome of the test rows in which it is known.

    metrics: "auc", "log_loss", "relative_information_gain" with intervals over rows; "gauc" and
    "ndcg_at_10" with intervals over users, where rows have users. calibration: of the calibrated
    probabilities; calibration_before: of those that the model gave, where a calibrator changed
    them. rows: how many there are. share: of positive rows, by weight.
    """

    metrics: Mapping[str, Interval]
    calibration: Calibration
    calibration_before: Calibration | None = None
    rows: int = 0
    share: float = 0.0

    @property
    def base_rate(self) -> float:
        """The log loss of always predicting the share of positives, in nats."""
        return base_rate(self.share)


@dataclass(frozen=True, kw_only=True)
class RankerResult(OutcomeResult):
    """How one ranker did.

    less_auc: how much less AUC than the model's, on the same draws of rows; None: it is the model.
    outcomes: what it predicts beside the label, by name; no metrics within users.
    """

    name: str
    less_auc: Interval | None = None
    outcomes: Mapping[str, OutcomeResult] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class RankingEvaluation(Shown):
    """Several rankers on the same test rows; the first result is the model's.

    base_rate: the log loss of always predicting the share of positives, which knows nothing of
    the features. metric: `training.metric`, which decides which epoch of the model is kept. part:
    of the log, "test", or "validation" where no row is test.
    """

    protocol: Mapping[str, str]
    results: Mapping[str, RankerResult]
    base_rate: float
    metric: str = "auc"
    part: str = measured.TEST

    @property
    def own(self) -> RankerResult:
        """The model's result."""
        return next(iter(self.results.values()))

    def to_frame(self) -> "pd.DataFrame":
        """Return a row a model and metric: `model`, `metric`, `value`, `low`, `high`.

        `low` and `high` are the ends of the 95 % interval over rows or users. A further outcome's
        name follows its metrics: `auc_<name>`.
        """
        import pandas as pd

        rows = [
            (name, f"{metric}{ending}", one.value, one.low, one.high)
            for name, result in self.results.items()
            for ending, outcome in _by_ending(result).items()
            for metric, one in outcome.metrics.items()
        ]
        return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high"])

    def flat(self) -> dict[str, float]:
        """Return the model's metrics as name -> value."""
        return {"base_rate_log_loss": self.base_rate, **_flat(self.own)}

    def kept(self) -> Kept:
        """Return what the model's bundle keeps."""
        own, *others = self.results.values()
        return Kept(
            test=self.flat() if self.part == measured.TEST else {},
            validation=self.flat() if self.part == measured.VALIDATION else {},
            intervals={
                f"{name}{ending}": (one.low, one.high)
                for ending, outcome in _by_ending(own).items()
                for name, one in outcome.metrics.items()
            },
            baselines={one.name: _flat(one) for one in others},
            decides=self.metric,
            protocol=self.protocol,
        )

    def tracked(self) -> dict[str, float]:
        """Return all metrics as MLflow names: the model's own, then those of each other one."""
        part = measured.TRACKED[self.part]
        return {f"{part}/{name}": value for name, value in self.figures().items()}

    def figures(self) -> dict[str, Any]:
        """Return the metrics as plain numbers: the model's, then those of the others by name."""
        found = self.flat()
        for name, result in list(self.results.items())[1:]:
            found |= {f"{name}/{metric}": value for metric, value in _flat(result).items()}
        return found


@dataclass(frozen=True)
class Evaluated:
    """A ranker's predictions of the rows that it is evaluated on, and how good they are."""

    name: str
    result: RankerResult
    drawn: NDArray[np.float64] = field(repr=False)
    """AUC on resampled rows, (samples,)."""


Predict = Callable[[int], Predictions]
"""What a ranker says of the rows of a part, `TEST` or another."""


def calibrator_of(config: RankerExperiment, rows: RankingRows, model: nn.Module) -> Calibrator:
    """Return the calibrator that `config.calibration` asks for, fitted on the validation rows."""
    return calibrator_by(config, rows, _said_by(config, rows, model))


def calibrator_by(config: RankerExperiment, rows: RankingRows, predict: Predict) -> Calibrator:
    """Return `calibrator_of` a ranker that is no module."""
    if config.calibration == "none":
        others = {outcome.name: Calibrator() for outcome in config.outcomes}
        return Calibrator(offset=rows.logit_offset, others=others)
    found = predict(VALIDATION)
    others = {name: _fitted(config, one) for name, one in found.outcomes.items()}
    return replace(_fitted(config, found), others=others)


def _fitted(config: RankerExperiment, found: Predictions) -> Calibrator:
    """Return what mends the probabilities of an outcome; nothing where it is known of no row."""
    kind = config.calibration if found.weight.sum() > 0 else "none"
    return fit_calibrator(kind, found.logit, found.label, found.weight, offset=found.offset)


def evaluate_ranker(
    config: RankerExperiment,
    rows: RankingRows,
    model: nn.Module,
    calibrator: Calibrator,
    name: str | None = None,
) -> Evaluated:
    """Evaluate `model`, whole in this process, on held-out rows; `name`: its kind where None."""
    name = config.model.kind if name is None else name
    return evaluate_by(config, rows, _said_by(config, rows, model), calibrator, name)


def evaluate_by(
    config: RankerExperiment,
    rows: RankingRows,
    predict: Predict,
    calibrator: Calibrator,
    name: str,
) -> Evaluated:
    """Evaluate a ranker that need not be a module on the part that its split keeps for that."""
    part = config.split.evaluated
    assert part is not None, "rows are held out"
    found = predict(part)
    label, drawn = _of_outcome(config, found, calibrator)
    others = {
        other: _of_outcome(config, one, calibrator.others[other])[0]
        for other, one in found.outcomes.items()
        if one.weight.sum() > 0
    }
    metrics = {**label.metrics, **_within_users(config, rows, found, part)}
    result = RankerResult(**{**vars(label), "metrics": metrics}, name=name, outcomes=others)
    return Evaluated(name, result, drawn)


def _of_outcome(
    config: RankerExperiment, found: Predictions, calibrator: Calibrator
) -> tuple[OutcomeResult, NDArray[np.float64]]:
    """Return how an outcome is predicted, and its AUC on resampled rows, (samples,)."""
    probability = calibrator.probability(found.logit)
    samples = min(config.evaluation.bootstrap_samples, MOST_SAMPLES)
    seed = config.training.seed
    # AUC is of the logits: a calibrator may tie rows that the model distinguishes.
    (auc, _), drawn = resampled(found.logit, found.label, found.weight, samples=samples, seed=seed)
    (_, loss), losses = resampled(
        probability, found.label, found.weight, samples=samples, seed=seed
    )
    share = float(np.average(found.label, weights=found.weight))
    base, nats = base_rate(share), interval_of(float(loss), losses[:, 1])
    metrics = {
        "auc": interval_of(float(auc), drawn[:, 0]),
        "log_loss": nats,
        "relative_information_gain": Interval(
            1 - nats.value / base, 1 - nats.high / base, 1 - nats.low / base
        ),
    }
    before = None
    if calibrator.kind != "none":
        before = calibration(found.probability, found.label, found.weight)
    after = calibration(probability, found.label, found.weight)
    return OutcomeResult(metrics, after, before, len(found.label), share), drawn[:, 0]


def evaluation_of(
    config: RankerExperiment,
    own: Evaluated,
    others: Sequence[Evaluated] = (),
    missing: Mapping[str, str] | None = None,
) -> RankingEvaluation:
    """Return the evaluation of a model and `others`, all evaluated on the same rows.

    missing: which others there are not, and why, for readers.
    """
    results, whole = {own.name: own.result}, own.result
    part = PART_NAMES[TEST if config.split.evaluated is None else config.split.evaluated]
    for other in others:
        less = own.result.metrics["auc"].value - other.result.metrics["auc"].value
        difference = interval_of(less, own.drawn - other.drawn)
        results[other.name] = replace(other.result, less_auc=difference)
    split = SPLITS[config.split.kind]
    protocol = {
        "split": f"{split}; {ON_VALIDATION}" if config.split.evaluated == VALIDATION else split,
        f"{part} rows": f"{whole.rows:,} rows, {whole.share:.1%} of them positive",
    }
    if config.training.negatives:
        protocol[f"{part} rows"] = (
            f"{whole.rows:,}: each event and up to {EVALUATION_NEGATIVES} other items of the "
            "catalogue, drawn at random and weighted up to all of it"
        )
    for outcome in config.outcomes:
        one, words = whole.outcomes.get(outcome.name), f"known of no {part} row"
        if one is not None:
            words = f"known of {one.rows:,} {part} rows, {one.share:.1%} of them positive"
        protocol[f"outcome {outcome.name}"] = words
    protocol |= missing or {}
    return RankingEvaluation(protocol, results, whole.base_rate, config.training.metric, part)


def base_rate(share: float) -> float:
    """Return the log loss of always predicting the share of positives, in nats."""
    share = min(max(share, 1e-7), 1 - 1e-7)
    return float(-share * np.log(share) - (1 - share) * np.log(1 - share))


def _said_by(config: RankerExperiment, rows: RankingRows, model: nn.Module) -> Predict:
    return lambda part: predictions(model, rows, part, config.training.batch_size, World())


def _within_users(
    config: RankerExperiment, rows: RankingRows, found: Predictions, part: int
) -> dict[str, Interval]:
    """GAUC, and NDCG of each user's rows as one list where all of them are there to be ranked."""
    users = rows.loader.users(part)
    if users is None:
        return {}
    samples, seed = config.evaluation.bootstrap_samples, config.training.seed
    grouped = GroupedRows.of(found.logit, users)
    aucs, sizes = grouped.auc(found.label), grouped.sizes
    metrics = {"gauc": weighted_interval(aucs, sizes, samples=samples, seed=seed)}
    if not config.training.negatives:
        ndcg = grouped.ndcg(found.label, NDCG_K)
        ones = np.ones(len(ndcg))
        metrics[f"ndcg_at_{NDCG_K}"] = weighted_interval(ndcg, ones, samples=samples, seed=seed)
    return {name: one for name, one in metrics.items() if not np.isnan(one.value)}


def _by_ending(result: RankerResult) -> dict[str, OutcomeResult]:
    """Return the results of all outcomes by what follows the names of their metrics."""
    return {"": result, **{f"_{name}": one for name, one in result.outcomes.items()}}


def _flat(result: RankerResult) -> dict[str, float]:
    found: dict[str, float] = {}
    for ending, one in _by_ending(result).items():
        own = {name: interval.value for name, interval in one.metrics.items()}
        if one.calibration_before is not None:
            own["calibration_error_before"] = one.calibration_before.error
        own["calibration_error"] = one.calibration.error
        if ending:
            own["base_rate_log_loss"] = one.base_rate
            # Of an outcome that is always the same there is no AUC.
            own = {name: value for name, value in own.items() if not np.isnan(value)}
        found |= {f"{name}{ending}": value for name, value in own.items()}
    return found
