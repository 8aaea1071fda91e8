"""How sure a mean over queries is: percentile bootstrap over queries.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: draw Q queries with
replacement, take the mean, repeat; the interval runs between the 2.5 % and 97.5 % quantiles.
Queries are the unit that is drawn, because the items of one query are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over the queries that both answer, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    values: Floats, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return (low, high) of the mean of `values`.

    Args:
        values: (Q,) one metric, one value a query; NaN (undefined) is left out.
        samples: how many times the queries are resampled.
        seed: of the draws; one seed gives one interval.
        level: share of the drawn means inside.

    Returns:
        NaN, NaN where no query is defined.
    """
    low, high = bootstrap_intervals(values[:, None], samples, seed, level)[0]
    return float(low), float(high)


def bootstrap_intervals(
    values: Floats, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> NDArray[np.float64]:
    """Return (M, 2) low and high of the means of M metrics, all on the same drawn queries.

    Drawing costs far more than the means, so many metrics at once cost about as much as one.

    Args:
        values: (Q, M), NaN where a metric is undefined for a query.
        samples: how many times the queries are resampled.
        seed: of the draws.
        level: share of the drawn means inside.
    """
    defined = ~np.isnan(values)
    asked = defined.any(1)
    values, defined = values[asked], defined[asked]
    if not len(values):
        return np.full((values.shape[1], 2), np.nan)
    both = np.hstack([np.where(defined, values, 0.0), defined])
    sums = _resampled_sums(both.astype(np.float64), samples, np.random.default_rng(seed))
    totals, counts = np.hsplit(sums, 2)
    means = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    tail = (1 - level) / 2
    return np.stack([_quantiles(column, tail) for column in means.T])


def paired_difference(
    a: Floats, b: Floats, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Return the mean difference a - b of two rankers on the same queries, with its interval.

    Args:
        a: (Q,) a metric of one ranker.
        b: (Q,) the same metric of the other, the same queries in the same order.
        samples: how many times the queries are resampled.
        seed: of the draws.
        level: share of the drawn means inside.

    Raises:
        ValueError: the two are not of one length.
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must answer the same queries, got {a.shape} and {b.shape}")
    difference = a - b
    return Difference(_mean(difference), *bootstrap_interval(difference, samples, seed, level))


def paired_differences(
    a: Mapping[str, Floats], b: Mapping[str, Floats], samples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Return `paired_difference` of each value that both have, all on the same drawn queries.

    a, b: name -> (Q,), NaN where undefined; Q is the same for all.
    """
    names = [name for name in a if name in b]
    if not names:
        return {}
    values = np.stack([a[name] - b[name] for name in names], axis=1)
    means = [_mean(column) for column in values.T]
    bounds = bootstrap_intervals(values, samples, seed)
    return {
        name: Difference(mean, float(low), float(high))
        for name, mean, (low, high) in zip(names, means, bounds, strict=True)
    }


def _resampled_sums(
    values: NDArray[np.float64], samples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Sum the rows of `values` (Q, M) under `samples` draws of Q rows, (samples, M)."""
    num_rows = len(values)
    sums = np.empty((samples, values.shape[1]))
    chunk = max(1, _CELLS_AT_ONCE // num_rows)
    for start in range(0, samples, chunk):
        stop = min(start + chunk, samples)
        drawn = generator.integers(0, num_rows, (stop - start, num_rows), dtype=np.int32)
        times = [np.bincount(row, minlength=num_rows) for row in drawn]
        sums[start:stop] = np.stack(times).astype(np.float64) @ values
    return sums


def _mean(values: Floats) -> float:
    """Return the mean of what is defined; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _quantiles(means: NDArray[np.float64], tail: float) -> NDArray[np.float64]:
    defined = means[~np.isnan(means)]
    if not len(defined):
        return np.full(2, np.nan)
    return np.quantile(defined, [tail, 1 - tail])
