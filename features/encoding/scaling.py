"""Numbers as a model reads them, from what the training rows show: fitted once, JSON both ways.

    standardise   (x - mean) / deviation
    log1p         the same after sign(x) * log(1 + |x|)
    log_squared   the same after log(x)^2 where x > 2 and x elsewhere: what AutoInt does to the
                  counts of click logs (Song et al., CIKM 2019, https://arxiv.org/abs/1810.11921,
                  section 5.1.1). As published it is no rising function: 2 stays 2, 3 becomes 1.2
    quantile      the share of training rows below x, stretched to unit deviation
    piecewise     several numbers, one a bin: how much of the bin is below x, 0 to 1 (Gorishniy et
                  al., "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS
                  2022, https://arxiv.org/abs/2203.05556, section 3.2, bins by quantiles)
    discretise    no number at all: the bin of x is a category

A number outside of what training saw counts as the nearest one that it saw: a model has nothing
to say about the world beyond.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct

Transform = Literal["standardise", "log1p", "log_squared", "quantile", "piecewise", "discretise"]
Bins = int | Literal["log_squared"]
DEFAULT_BINS = 16
_KNOTS = 101
_BINNED = ("piecewise", "discretise")


@dataclass(frozen=True)
class Scaler:
    """Maps a number to about [-2, 2], to one number a bin, or to the number of its bin.

    low, high: the range of the training rows. knots: the quantiles of `quantile`, or the edges
    of the bins, rising. bins: as asked for; a value that many rows hold is several quantiles, which
    make fewer bins.
    """

    transform: Transform
    mean: float
    deviation: float
    low: float
    high: float
    knots: tuple[float, ...] = ()
    bins: Bins = 0

    @classmethod
    def fit(
        cls, transform: Transform, values: NDArray[np.float64], bins: Bins | None = None
    ) -> Self:
        """Fit on `values` (N,), NaN where null; without a single number everything maps to 0."""
        values = values[~np.isnan(values)]
        asked = (DEFAULT_BINS if bins is None else bins) if transform in _BINNED else 0
        if len(values) == 0:
            return cls(transform, 0.0, 1.0, 0.0, 0.0, bins=asked)
        low, high = float(values.min()), float(values.max())
        if asked:
            edges = np.zeros(0) if isinstance(asked, str) else _quantiles(values, asked + 1)
            # A category begins at each edge but the ends: the largest value is none of its own.
            inner = edges[1:-1] if transform == "discretise" else edges
            knots = tuple(float(edge) for edge in distinct(inner))
            return cls(transform, 0.0, 1.0, low, high, knots, asked)
        if transform == "quantile":
            knots = tuple(float(knot) for knot in _quantiles(values, _KNOTS))
            # A uniform share has mean 1/2 and deviation 1/sqrt(12).
            return cls(transform, 0.5, 12**-0.5, low, high, knots)
        values = _squash(transform, values)
        return cls(transform, float(values.mean()), float(values.std()) or 1.0, low, high)

    def is_like(self, other: "Scaler") -> bool:
        """Whether both were asked for the same: what they make of a number is comparable."""
        return (self.transform, self.bins) == (other.transform, other.bins)

    @property
    def num_bins(self) -> int:
        """How many numbers `piecewise` makes of one."""
        return max(len(self.knots) - 1, 1)

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

    def piecewise(self, values: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        """Return `num_bins` columns (N,) float32 of the bins from low to high; NaN becomes 0."""
        edges = np.array(self.knots if len(self.knots) > 1 else (self.low, self.low + 1.0))
        values = np.clip(values, self.low, self.high)
        with np.errstate(over="ignore"):  # far beyond a tiny bin is past it
            shares = [(values - start) / (stop - start) for start, stop in pairwise(edges)]
        return [np.nan_to_num(np.clip(share, 0, 1)).astype(np.float32) for share in shares]

    def category(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of the bin, (N,) int64; that of NaN means nothing.

        `bins: log_squared`: the floor of log(x)^2 where x > 2, and else the floor of x, in bins
        of its own: the recipe of the winners of the Criteo challenge.
        """
        values = np.nan_to_num(np.clip(values, self.low, self.high))
        if self.bins == "log_squared":
            squares = np.floor(np.log(np.maximum(values, 2)) ** 2)
            return np.where(values > 2, 3 + squares, np.floor(values)).astype(np.int64)
        return np.searchsorted(np.array(self.knots), values, side="right").astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{**raw, "knots": tuple(raw["knots"])})


def _quantiles(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.asarray(np.quantile(values, np.linspace(0, 1, count)))


@dataclass(frozen=True)
class Scales:
    """Several scalers that standardise, as one of rows; each (F,)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, scalers: Sequence[Scaler]) -> Self:
        """Return them side by side.

        Raises:
            ValueError: one does something else.
        """
        if any(one.transform != "standardise" for one in scalers):
            raise ValueError("only scalers that standardise are applied to rows at once")
        names = ("low", "high", "mean", "deviation")
        return cls(*(np.array([getattr(one, name) for one in scalers]) for name in names))

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return (N, F) float32, each column as its scaler has it; NaN becomes 0."""
        scaled = (np.clip(values, self.low, self.high) - self.mean) / self.deviation
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


def _squash(transform: Transform, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if transform == "log1p":
        return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
    if transform == "log_squared":
        return np.where(values > 2, np.log(np.maximum(values, 2)) ** 2, values)
    return values
