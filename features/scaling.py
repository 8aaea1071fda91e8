"""Numbers scaled by what the training rows show: fitted once, frozen, JSON both ways."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Transform = Literal["standardise", "log1p", "quantile"]
_KNOTS = 101


@dataclass(frozen=True)
class Scaler:
    """Maps a number to about [-2, 2]; a null becomes 0 (its indicator says so).

    A number outside of what training saw counts as the nearest one that it saw: a model has
    nothing to say about the world beyond.

    `standardise`: (x - mean) / deviation. `log1p`: the same after sign(x) * log(1 + |x|).
    `quantile`: the share of training rows below x, stretched to unit deviation.
    """

    transform: Transform
    mean: float
    deviation: float
    low: float
    high: float
    knots: tuple[float, ...] = ()

    @classmethod
    def fit(cls, transform: Transform, values: NDArray[np.float64]) -> Self:
        """Fit on `values` (N,), NaN where null; without a single number everything maps to 0."""
        values = values[~np.isnan(values)]
        if len(values) == 0:
            return cls(transform, 0.0, 1.0, 0.0, 0.0)
        low, high = float(values.min()), float(values.max())
        if transform == "quantile":
            knots = np.quantile(values, np.linspace(0, 1, _KNOTS))
            # A uniform share has mean 1/2 and deviation 1/sqrt(12).
            return cls(transform, 0.5, 12**-0.5, low, high, tuple(float(knot) for knot in knots))
        values = _squash(transform, values)
        return cls(transform, float(values.mean()), float(values.std()) or 1.0, low, high)

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return (N,) float32; NaN becomes 0."""
        values = np.clip(values, self.low, self.high)
        if self.knots:
            # The middle of a tie, so that a value held by many rows does not sit at its edge.
            low = np.searchsorted(self.knots, values, side="left")
            high = np.searchsorted(self.knots, values, side="right")
            tie = (low + high - 1) / 2 / (_KNOTS - 1)
            between = np.interp(values, self.knots, np.linspace(0, 1, _KNOTS))
            values = np.where(high - low > 1, tie, between) + 0 * values
        else:
            values = _squash(self.transform, values)
        scaled = (values - self.mean) / self.deviation
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{**raw, "knots": tuple(raw["knots"])})


def _squash(transform: Transform, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if transform == "log1p":
        return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
    return values
