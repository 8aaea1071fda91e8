"""Results of rankers on labelled test rows: the model, and those trained to compare it with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from recsys.bundle.calibration import Calibrator
from recsys.features.batches.negatives import EVALUATION_NEGATIVES
from recsys.features.dataset.split import TEST, VALIDATION
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
from recsys.training.families.ranker.calibrating import fit_calibrator
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import Predictions, predictions

if TYPE_CHECKING:
    import pandas as pd

MOST_SAMPLES = 200
"""Bootstrap samples at most: each one sorts nothing, but passes over all test rows."""
NDCG_K = 10
_WORDS = {
    "time": "by time: training before validation before test",
    "leave_one_out": "leave one out, each user's last row",
    "column": "given by a column",
}


@dataclass(frozen=True)
class RankerResult:
    """How one ranker did.

    metrics: "auc", "log_loss", "relative_information_gain" with intervals over rows; "gauc" and
    "ndcg_at_10" with intervals over users, where rows have users. calibration: of the calibrated
    probabilities; calibration_before: of those that the model gave, where a calibrator changed
    them. less_auc: how much less AUC than the model's, on the same draws of rows; None: it is
    the model.
    """

    name: str
    metrics: Mapping[str, Interval]
    calibration: Calibration
    calibration_before: Calibration | None = None
    less_auc: Interval | None = None


@dataclass(frozen=True, repr=False)
class RankingEvaluation(Shown):
    """Several rankers on the same test rows; the first result is the model's.

    base_rate: the log loss of always predicting the share of positives, which knows nothing of
    the features. metric: `training.metric`, which decides which epoch of the model is kept.
    """

    protocol: Mapping[str, str]
    results: Mapping[str, RankerResult]
    base_rate: float
    metric: str = "auc"

    @property
    def own(self) -> RankerResult:
        """The model's result."""
        return next(iter(self.results.values()))

    def to_frame(self) -> "pd.DataFrame":
        """Return a row a model and metric: `model`, `metric`, `value`, `low`, `high`.

        `low` and `high` are the ends of the 95 % interval over rows or users.
        """
        import pandas as pd

        rows = [
            (name, metric, one.value, one.low, one.high)
            for name, result in self.results.items()
            for metric, one in result.metrics.items()
        ]
        return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high"])

    def flat(self) -> dict[str, float]:
        """Return the model's metrics as name -> value."""
        return {"base_rate_log_loss": self.base_rate, **_flat(self.own)}

    def tracked(self) -> dict[str, float]:
        """Return all metrics as MLflow names: the model's own, then those of each other one."""
        found = {f"test/{name}": value for name, value in self.flat().items()}
        for name, result in list(self.results.items())[1:]:
            found |= {f"test/{name}/{metric}": value for metric, value in _flat(result).items()}
        return found

    def figures(self) -> dict[str, Any]:
        """Return the metrics as plain numbers: the model's, then those of the others by name."""
        return {name.removeprefix("test/"): value for name, value in self.tracked().items()}


@dataclass(frozen=True)
class Evaluated:
    """A ranker's test predictions and how good they are."""

    name: str
    result: RankerResult
    drawn: NDArray[np.float64] = field(repr=False)
    """AUC on resampled rows, (samples,)."""
    rows: int
    share: float
    """Of positive rows, by weight."""


Predict = Callable[[int], Predictions]
"""What a ranker says of the rows of a part, `TEST` or another."""


def calibrator_of(config: RankerExperiment, rows: RankingRows, model: nn.Module) -> Calibrator:
    """Return the calibrator that `config.calibration` asks for, fitted on the validation rows."""
    return calibrator_by(config, rows, _said_by(config, rows, model))


def calibrator_by(config: RankerExperiment, rows: RankingRows, predict: Predict) -> Calibrator:
    """Return `calibrator_of` a ranker that is no module."""
    if config.calibration == "none":
        return Calibrator(offset=rows.logit_offset)
    found = predict(VALIDATION)
    return fit_calibrator(
        config.calibration, found.logit, found.label, found.weight, offset=found.offset
    )


def evaluate_ranker(
    config: RankerExperiment,
    rows: RankingRows,
    model: nn.Module,
    calibrator: Calibrator,
    name: str | None = None,
) -> Evaluated:
    """Evaluate `model`, whole in this process, on the test rows; `name`: its kind where None."""
    name = config.model.kind if name is None else name
    return evaluate_by(config, rows, _said_by(config, rows, model), calibrator, name)


def evaluate_by(
    config: RankerExperiment,
    rows: RankingRows,
    predict: Predict,
    calibrator: Calibrator,
    name: str,
) -> Evaluated:
    """Evaluate a ranker that need not be a module on the test rows."""
    found = predict(TEST)
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
        **_within_users(config, rows, found),
    }
    before = None
    if calibrator.kind != "none":
        before = calibration(found.probability, found.label, found.weight)
    after = calibration(probability, found.label, found.weight)
    result = RankerResult(name, metrics, after, before)
    return Evaluated(name, result, drawn[:, 0], len(found.label), share)


def evaluation_of(
    config: RankerExperiment,
    own: Evaluated,
    others: Sequence[Evaluated] = (),
    missing: Mapping[str, str] | None = None,
) -> RankingEvaluation:
    """Return the evaluation of a model and `others`, all evaluated on the same rows.

    missing: which others there are not, and why, for readers.
    """
    results = {own.name: own.result}
    for other in others:
        less = own.result.metrics["auc"].value - other.result.metrics["auc"].value
        difference = interval_of(less, own.drawn - other.drawn)
        results[other.name] = replace(other.result, less_auc=difference)
    protocol = {
        "split": _WORDS[config.split.kind],
        "test rows": f"{own.rows:,} rows, {own.share:.1%} of them positive",
    }
    if config.training.negatives:
        protocol["test rows"] = (
            f"{own.rows:,}: each event and up to {EVALUATION_NEGATIVES} other items of the "
            "catalogue, drawn at random and weighted up to all of it"
        )
    protocol |= missing or {}
    return RankingEvaluation(protocol, results, base_rate(own.share), config.training.metric)


def base_rate(share: float) -> float:
    """Return the log loss of always predicting the share of positives, in nats."""
    share = min(max(share, 1e-7), 1 - 1e-7)
    return float(-share * np.log(share) - (1 - share) * np.log(1 - share))


def _said_by(config: RankerExperiment, rows: RankingRows, model: nn.Module) -> Predict:
    return lambda part: predictions(model, rows, part, config.training.batch_size, World())


def _within_users(
    config: RankerExperiment, rows: RankingRows, found: Predictions
) -> dict[str, Interval]:
    """GAUC, and NDCG of each user's rows as one list where all of them are there to be ranked."""
    users = rows.loader.users(TEST)
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


def _flat(result: RankerResult) -> dict[str, float]:
    found = {name: interval.value for name, interval in result.metrics.items()}
    if result.calibration_before is not None:
        found["calibration_error_before"] = result.calibration_before.error
    return {**found, "calibration_error": result.calibration.error}
