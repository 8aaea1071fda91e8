"""Calibration mended: a map from logits to probabilities, fitted on the validation rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.calibration import Calibrator, Kind, sigmoid
from recsys.metrics.classification import log_loss

Floats = NDArray[np.floating[Any]]
_WIDEST = 4.0
"""Natural logarithm of the largest temperature, and minus that of the smallest."""


def fit_calibrator(
    kind: Kind, logit: Floats, label: Floats, weight: Floats, *, offset: float = 0.0
) -> Calibrator:
    """Return the calibrator of a kind with the least log loss on rows that were not trained on.

    Args:
        kind: see `recsys.bundle.calibration`.
        logit: (N,) of the model, as it gives them.
        label: (N,) 0 or 1.
        weight: (N,) of the rows.
        offset: what undoes the sampling of the training rows.
    """
    from scipy.optimize import minimize, minimize_scalar
    from sklearn.isotonic import IsotonicRegression

    if kind == "none":
        return Calibrator(offset=offset)
    if kind == "temperature":

        def loss(log_temperature: float) -> float:
            tried = Calibrator("temperature", offset, float(np.exp(log_temperature)))
            return log_loss(tried.probability(logit), label, weight)

        # The loss is convex in 1 / T, so it has one valley in log T as well.
        best = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded")
        return Calibrator("temperature", offset, float(np.exp(best.x)))
    if kind == "beta":
        z = logit.astype(np.float64) + offset
        powers_N2 = np.stack([-np.logaddexp(0, -z), np.logaddexp(0, z)], axis=1)
        found = minimize(_beta_loss, np.zeros(3), (powers_N2, label, weight), jac=True).x
        slopes = (float(np.exp(found[0])), float(np.exp(found[1])))
        return Calibrator("beta", offset, slopes=slopes, shift=float(found[2]))
    # A step at 0 or 1 would make the log loss of one wrong row infinite.
    edge = 0.5 / (len(label) + 1)
    steps = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    steps.fit(logit.astype(np.float64) + offset, label, weight)
    return Calibrator(
        "isotonic",
        offset,
        logits=tuple(steps.X_thresholds_.tolist()),
        probabilities=tuple(steps.y_thresholds_.tolist()),
    )


def _beta_loss(
    given: Floats, powers_N2: Floats, label: Floats, weight: Floats
) -> tuple[float, Floats]:
    """Return the log loss of all rows, summed, and its gradient.

    given: (3,) log a, log b and c, which are normal with deviation 1 before a row is seen: so few
    rows change little, and many rows decide alone. powers_N2: log q and -log(1 - q). label, weight:
    (N,) each. The gradient is (3,).
    """
    slopes = np.exp(given[:2])
    z = powers_N2 @ slopes + given[2]
    loss = weight @ (np.logaddexp(0, z) - label * z) + given @ given / 2
    wrong = weight * (sigmoid(z) - label)
    return loss, given + np.append(slopes * (wrong @ powers_N2), wrong.sum())
