"""Probabilities of taking: by hand, never falling with the score, kept through a file."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundle.calibration import Calibrator
from recsys.bundle.pair_calibration import InteractionProbability, PairCalibrator

STEPS = Calibrator("isotonic", logits=(-2.0, 0.0, 1.0), probabilities=(0.1, 0.1, 0.6))


def test_a_logistic_map_by_hand() -> None:
    found = PairCalibrator(slope=2.0, activity=0.5, intercept=-1.0)
    # log(1 + 3) * 0.5 = log 2: z = 2 * 0.5 - 1 + log 2.
    assert found.probability(np.array([0.5]), np.array([3]))[0] == pytest.approx(2 / 3)
    assert found.probability(np.array([0.5]), np.array([0]))[0] == pytest.approx(0.5)


def test_an_isotonic_map_by_hand() -> None:
    found = PairCalibrator(slope=2.0, intercept=-1.0, link=STEPS)
    scores = np.array([-9.0, 0.5, 0.75, 9.0])
    assert found.probability(scores, np.zeros(4)) == pytest.approx([0.1, 0.1, 0.35, 0.6])


def test_new_and_known_items_have_maps_of_their_own() -> None:
    low, high = PairCalibrator(intercept=-math.log(9)), PairCalibrator(intercept=math.log(9))
    found = InteractionProbability(known=low, new=high, period="a week")
    pairs = found.probability(np.zeros(3), np.full(3, 7), np.array([True, False, True]))
    assert pairs == pytest.approx([0.9, 0.1, 0.9])


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=30),
    st.floats(0, 50),
    st.integers(0, 1000),
    st.sampled_from([Calibrator(), STEPS]),
)
def test_the_probability_of_one_user_never_falls_with_the_score(
    scores: list[float], slope: float, events: int, link: Calibrator
) -> None:
    found = PairCalibrator(slope=slope, activity=-0.3, intercept=0.2, link=link)
    ascending = np.sort(np.array(scores, np.float32))
    assert (np.diff(found.probability(ascending, np.array([events]))) >= 0).all()


def test_saved_and_read_it_says_the_same() -> None:
    known = PairCalibrator(1.5, 0.2, -3.0, STEPS, "all", 10, 4, 0.5, 1.5)
    before = InteractionProbability(known, PairCalibrator(), "within 31 days")
    assert InteractionProbability.from_json(before.to_json()) == before
