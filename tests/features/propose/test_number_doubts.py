"""Numbers so large that all others become one are said; long tails are not."""

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.propose.number_doubts import _flattening

BULK = np.arange(1, 60, dtype=np.float64)


@pytest.mark.parametrize("odd", [1e38, -1e300, 1e308, 1e7])
def test_one_number_that_flattens_the_others(odd: float) -> None:
    assert _flattening(pa.chunked_array([[odd, None], BULK])) == pytest.approx(odd)


@pytest.mark.parametrize(
    "values",
    [
        BULK,
        np.random.default_rng(0).lognormal(0, 2, 1000),
        np.array([1.0, 0.0, 0.0, 0.0] * 100),
        np.full(10, 1e38),
        np.zeros(3),
        np.zeros(0),
    ],
)
def test_other_columns(values: np.ndarray) -> None:
    assert _flattening(pa.chunked_array([values])) is None
