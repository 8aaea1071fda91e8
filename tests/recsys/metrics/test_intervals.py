"""Bootstrap intervals: against the normal approximation, coverage of a known mean, pairing."""

import math

import numpy as np
import pytest
import scipy.stats

from recsys.metrics.intervals import bootstrap_interval, bootstrap_intervals, paired_difference


def test_interval_equals_scipy_and_the_normal_approximation() -> None:
    values = np.random.default_rng(1).exponential(size=400)
    low, high = bootstrap_interval(values, samples=4000, seed=0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=half * 0.15
    )
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=half * 0.1)


def test_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for seed in range(300):
        low, high = bootstrap_interval(generator.random(80) < 0.3, samples=200, seed=seed)
        held += low <= 0.3 <= high
    # 95 % of 300 is 285; three standard deviations of chance and the small sample's bias: 18.
    assert 267 <= held <= 298


def test_undefined_queries_are_left_out() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.5] * 20)
    gaps = np.concatenate([[np.nan] * 7, values, [np.nan]])
    assert bootstrap_interval(gaps, 300, 5) == bootstrap_interval(values, 300, 5)
    assert np.isnan(bootstrap_interval(np.full(3, np.nan))).all()


def test_many_metrics_at_once_equal_each_alone() -> None:
    values = np.random.default_rng(4).random((50, 3))
    together = bootstrap_intervals(values, 200, 6)
    alone = [bootstrap_interval(column, 200, 6) for column in values.T]
    np.testing.assert_allclose(together, alone)
    # Undefined for some queries in one metric only: the mean is over those defined.
    values[::2, 1] = np.nan
    low, high = bootstrap_intervals(values, 2000, 6)[1]
    assert low < np.nanmean(values[:, 1]) < high
    half = 1.96 * np.nanstd(values[:, 1]) / 5
    assert high - low == pytest.approx(2 * half, rel=0.15)


def test_pairing_sees_a_small_steady_difference_that_the_two_means_hide() -> None:
    generator = np.random.default_rng(7)
    hard = generator.random(500)
    a, b = hard + 0.01 + generator.normal(0, 0.02, 500), hard
    apart = paired_difference(a, b, samples=500, seed=0)
    assert apart.apart
    assert apart.low < apart.mean < apart.high
    assert apart.mean == pytest.approx((a - b).mean())
    assert bootstrap_interval(a, 500, 0)[0] < bootstrap_interval(b, 500, 0)[1]
    assert not paired_difference(generator.permutation(hard), hard, samples=500).apart
    with pytest.raises(ValueError, match="same queries"):
        paired_difference(a, b[:-1])
