"""Clicks with a known truth: the truth is the best, and pairs are a part of it."""

import numpy as np
import pytest
from embedding_methods.planted import CARDINALITIES, draw_clicks
from sklearn.metrics import roc_auc_score


def test_values_are_as_popular_as_zipf_says() -> None:
    clicks = draw_clicks(np.random.default_rng(0), 40_000)
    assert set(clicks.values) == set(CARDINALITIES)
    counts = np.bincount(clicks.values["hour"], minlength=24)
    expected = 40_000 / np.arange(1, 25) / (1 / np.arange(1, 25)).sum()
    np.testing.assert_allclose(counts, expected, rtol=0.1)


def test_labels_are_drawn_with_the_probabilities_of_the_truth() -> None:
    clicks = draw_clicks(np.random.default_rng(1), 40_000)
    probability = 1 / (1 + np.exp(-clicks.log_odds))
    high = probability > np.median(probability)
    for part in (high, ~high):
        assert clicks.label[part].mean() == pytest.approx(probability[part].mean(), abs=0.01)


def test_sums_of_effects_of_single_values_stay_below_the_truth() -> None:
    clicks = draw_clicks(np.random.default_rng(2), 60_000)
    every = np.ones(60_000, bool)
    main = np.zeros(60_000)
    for own in clicks.values.values():
        total = np.bincount(own, clicks.log_odds) / np.maximum(np.bincount(own), 1)
        main += total[own]  # in view of the truth itself
    assert clicks.auc(every) > roc_auc_score(clicks.label, main) + 0.02
    assert 0.75 < clicks.auc(every) < 0.9
