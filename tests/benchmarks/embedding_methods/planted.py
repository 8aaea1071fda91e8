"""Clicks with a known truth: Zipf values, an effect of each value, effects of pairs of values.

A feature's values have popularity 1 / rank. The log odds of a click are the sum of an effect of
every value and, for the planted pairs of features, the inner product of a vector of each of both
values: pairs of large features have to be learnt from few rows a value, which is where an
embedding that lets values share rows pays for it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

CARDINALITIES = {
    "user": 40_000,
    "item": 15_000,
    "page": 4_000,
    "seller": 1_500,
    "city": 300,
    "category": 60,
    "hour": 24,
    "device": 5,
}
"""Of a million rows and more; fewer rows have fewer values of the four largest."""
PAIRS = (
    ("user", "category"),
    ("user", "item"),
    ("item", "page"),
    ("seller", "city"),
    ("category", "hour"),
    ("page", "device"),
)
RANK, MAIN, PAIR, BIAS = 4, 0.5, 0.8, -1.6
"""Length of the vectors; deviation of an effect and of a pair's; log odds of a mean click."""


@dataclass(frozen=True)
class Clicks:
    """values: feature -> (N,) int64; label (N,) 0 or 1; log_odds (N,) that drew it."""

    values: dict[str, NDArray[np.int64]]
    label: NDArray[np.int8]
    log_odds: NDArray[np.float64]

    def auc(self, rows: NDArray[np.bool_]) -> float:
        """Return the AUC of the truth on some rows: no model has a better one but by chance."""
        return float(roc_auc_score(self.label[rows], self.log_odds[rows]))


def draw_clicks(rng: np.random.Generator, num_rows: int) -> Clicks:
    """Return `num_rows` independent rows."""
    share = min(1.0, num_rows / 1e6)
    values = {
        name: _zipf(rng, max(int(count * share), 2) if count > 1000 else count, num_rows)
        for name, count in CARDINALITIES.items()
    }
    log_odds = np.full(num_rows, BIAS)
    for own in values.values():
        log_odds += rng.normal(0, MAIN, int(own.max()) + 1)[own]
    for pair in PAIRS:
        # A product of two normal numbers has variance 1; the sum of RANK of them RANK.
        first, second = (
            rng.normal(size=(int(values[name].max()) + 1, RANK))[values[name]] for name in pair
        )
        log_odds += PAIR / RANK**0.5 * (first * second).sum(1)
    label = rng.random(num_rows) < 1 / (1 + np.exp(-log_odds))
    return Clicks(values, label.astype(np.int8), log_odds)


def _zipf(rng: np.random.Generator, count: int, num_rows: int) -> NDArray[np.int64]:
    """Return values 0..count - 1 with popularity 1 / rank, (num_rows,)."""
    cumulative = np.cumsum(1 / np.arange(1, count + 1))
    return np.searchsorted(cumulative, rng.random(num_rows) * cumulative[-1])
