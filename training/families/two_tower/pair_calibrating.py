"""The probability of an interaction, fitted on the validation part.

The pairs are of all users who were there before the part (`recsys.features.dataset.pair_sample`).
For items without a training row, which metadata alone describe, the scores mean something else than
for those that training knows: they have a map of their own, fitted on the items whose every row is
in validation.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle.calibration import Calibrator
from recsys.bundle.pair_calibration import InteractionProbability, PairCalibrator
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.pair_sample import (
    PairSample,
    released_items,
    sample_pairs,
)
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.metrics.classification import auc, calibration, log_loss
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.families.two_tower.enough import LEAST_ITEMS, LEAST_POSITIVE, check_calibration

Floats = NDArray[np.floating[Any]]
_AT_ONCE = 1 << 18


def pair_scores(model: TwoTower, data: Dataset, sample: PairSample) -> NDArray[np.float32]:
    """Return the score of each pair, (P,)."""
    device = next(model.parameters()).device
    items = catalogue_vectors(model, data.items.to(device))
    queries = query_vectors(model, sample.block.to(device), items, sample.history.to(device))
    query = torch.from_numpy(sample.query).to(device)
    row = torch.from_numpy(sample.item_row).to(device)
    parts = [
        _products(queries[query[part]], items[row[part]])
        for part in torch.arange(len(query), device=device).split(_AT_ONCE)
    ]
    return torch.cat(parts or [torch.zeros(0)]).cpu().numpy()


def _products(queries_P: Tensor, items_PE: Tensor) -> Tensor:
    """Return the score of each pair, (P,), of queries (P, E), or (P, I, E) of several interests."""
    if queries_P.ndim == 2:
        return (queries_P * items_PE).sum(1)
    return (queries_P * items_PE.unsqueeze(1)).sum(2).amax(1)


def fit_pairs(
    kind: str, score: Floats, num_events: NDArray[np.int64], label: Floats, weight: Floats
) -> PairCalibrator:
    """Return the map of least log loss on pairs.

    Args:
        kind: "logistic" or "isotonic".
        score: (P,) of the model.
        num_events: (P,) events of the pair's user.
        label: (P,) 0 or 1.
        weight: (P,) how many pairs each represents.
    """
    from sklearn.isotonic import IsotonicRegression

    columns = np.stack([score, np.log1p(num_events)], axis=1).astype(np.float64)
    middle, scale = columns.mean(0), np.maximum(columns.std(0), 1e-12)
    unit = (columns - middle) / scale
    share = weight * (len(weight) / weight.sum())
    slopes, intercept = _logistic(unit, label, share)
    if slopes[0] < 0:
        # A model that ranks worse than chance: the order of items is never turned round.
        slopes, intercept = _logistic(unit * (0, 1), label, share)
    slopes = slopes / scale
    start = float(intercept - slopes @ middle)
    plain = PairCalibrator(float(slopes[0]), float(slopes[1]), start)
    if kind == "logistic":
        return plain
    z = columns @ slopes + plain.intercept
    edge = 0.5 / (float(weight.sum()) + 1)
    steps = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    steps.fit(z, label, weight)
    link = Calibrator(
        "isotonic",
        logits=tuple(steps.X_thresholds_.tolist()),
        probabilities=tuple(steps.y_thresholds_.tolist()),
    )
    return PairCalibrator(plain.slope, plain.activity, plain.intercept, link)


def _logistic(unit: Floats, label: Floats, share: Floats) -> tuple[Floats, float]:
    """Return slopes (2,) and intercept of a logistic regression; a column of zeros has slope 0."""
    # Newton's method: at its end expected and actual numbers agree, which calibration is about.
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-8, max_iter=100)
    model.fit(unit, label > 0, share)
    return model.coef_[0], float(model.intercept_[0])


def interaction_probability(
    config: TwoTowerExperiment, data: Dataset, model: TwoTower
) -> InteractionProbability | None:
    """Return the calibration that `config.calibration` asks for; None where it asks for none.

    Raises:
        DataError: the validation part has too few interactions.
    """
    if config.calibration == "none":
        return None
    check_calibration(config, data.tables, data.part)
    items = _fitted_on(data)
    fitted = {
        name: _fitted(config, data, model, *items[name])
        or _fitted(config, data, model, *items["every"])
        for name in ("known", "new")
    }
    known, new = fitted["known"], fitted["new"]
    assert known is not None
    assert new is not None
    return InteractionProbability(known, new, period_of(config, data))


def _fitted_on(data: Dataset) -> dict[str, tuple[NDArray[np.bool_], str]]:
    """Return what probabilities are fitted on, name -> items (n_items,) bool and words for them."""
    trained = data.train_counts > 0
    released = released_items(data, VALIDATION)
    every = trained | released
    return {
        "known": (trained, "items with training rows"),
        "new": (released, "items whose first rows are in the validation part"),
        "every": (every, "all items of the training and validation parts"),
    }


def _is_enough(items: NDArray[np.bool_], sample: PairSample) -> bool:
    positive = sample.num_positive
    return items.sum() >= LEAST_ITEMS and LEAST_POSITIVE <= positive < len(sample.label)


def _fitted(
    config: TwoTowerExperiment,
    data: Dataset,
    model: TwoTower,
    items: NDArray[np.bool_],
    words: str,
) -> PairCalibrator | None:
    """Return the map of some items; None where they, or their interactions, are too few."""
    sample = _sample(config, data, VALIDATION, items)
    if not _is_enough(items, sample):
        return None
    score, events = pair_scores(model, data, sample), sample.num_events[sample.query]
    found = fit_pairs(config.calibration, score, events, sample.label, sample.weight)
    expected = sample.weight * found.probability(score, events)
    size = data.num_items
    actual = np.bincount(sample.item_row, sample.weight * sample.label, size)[items]
    ratio = actual / np.maximum(np.bincount(sample.item_row, expected, size)[items], 1e-12)
    low, high = np.quantile(ratio, (0.1, 0.9))
    facts = {"fitted_on": words, "pairs": len(sample.label), "taken": sample.num_positive}
    spread = {"audience_low": float(low), "audience_high": float(high)}
    return PairCalibrator(**{**vars(found), **facts, **spread})


def probability_metrics(
    config: TwoTowerExperiment, data: Dataset, model: TwoTower, calibrated: InteractionProbability
) -> dict[str, float]:
    """Return how the probabilities do on the test part, for known and for new items.

    "probability_new_error" (expected calibration error), "..._log_loss", "..._auc" and
    "..._share", the share of the pairs with an interaction; a kind of items without any is left
    out.
    """
    found: dict[str, float] = {}
    kinds = {
        "known": (data.train_counts > 0, calibrated.known),
        "new": (released_items(data, TEST), calibrated.new),
    }
    for name, (items, calibrator) in kinds.items():
        sample = _sample(config, data, TEST, items)
        if not sample.num_positive:
            continue
        score = pair_scores(model, data, sample)
        probability = calibrator.probability(score, sample.num_events[sample.query])
        label, weight = sample.label, sample.weight
        found |= {
            f"probability_{name}_error": calibration(probability, label, weight).error,
            f"probability_{name}_log_loss": log_loss(probability, label, weight),
            f"probability_{name}_auc": auc(score, label, weight),
            f"probability_{name}_share": float(np.average(label, weights=weight)),
        }
    return found


def _sample(
    config: TwoTowerExperiment, data: Dataset, part: int, items: NDArray[np.bool_]
) -> PairSample:
    return sample_pairs(
        data,
        part,
        items,
        history_length=config.model.history_length,
        filter_seen=config.evaluation.filter_seen,
        active_only=config.split.kind == "leave_one_out",
        seed=config.training.seed,
    )


def period_of(config: TwoTowerExperiment, data: Dataset) -> str:
    """Describe the time in which the interaction is to occur."""
    if config.split.kind == "leave_one_out":
        return "as the next item of the user"
    if config.split.kind == "column" or config.schema_.interactions.time is None:
        return "within what the validation part holds"
    times = data.tables.events.time[data.part == VALIDATION]
    days = (int(times.max()) - int(times.min())) / 86_400_000_000
    return f"within {days:.3g} days, the length of the validation part"
