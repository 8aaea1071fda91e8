"""Mutual information: by hand, against scikit-learn, and what chance would show."""

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

from recsys.metrics.information import excess_information, mutual_information


def test_two_columns_by_hand() -> None:
    """Cells of 1/2, 1/4 and 1/4: I = H(a) + H(b) - H(ab)."""
    found = mutual_information([np.array([0, 0, 0, 1]), np.array(["x", "x", "y", "y"])])
    entropy_a = -(3 / 4 * log(3 / 4) + 1 / 4 * log(1 / 4))
    entropy_ab = -(1 / 2 * log(1 / 2) + 2 * 1 / 4 * log(1 / 4))
    np.testing.assert_allclose(np.diag(found), [entropy_a, log(2)])
    np.testing.assert_allclose(found[0, 1], entropy_a + log(2) - entropy_ab)
    assert found[0, 1] == found[1, 0]


def test_independent_columns_tell_nothing_and_equal_ones_all() -> None:
    first, second = (axis.ravel() for axis in np.meshgrid(np.arange(4), np.arange(7)))
    found = mutual_information([first, second, first * -3 + 5])
    assert found[0, 1] == pytest.approx(0, abs=1e-12)
    assert found[0, 2] == pytest.approx(log(4))
    assert found[2, 2] == pytest.approx(log(4))


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(*[st.integers(-(2**62), 2**62) | st.integers(0, 3)] * 3), min_size=1, max_size=40
    )
)
def test_any_columns_against_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    columns = list(np.array(rows, np.int64).T)
    found = mutual_information(columns)
    expected = [[mutual_info_score(a, b) for b in columns] for a in columns]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found >= 0).all()


def test_an_id_tells_all_in_a_sample_and_nothing_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    rows = 4_000
    group = rng.integers(0, 6, rows)
    noisy = np.where(rng.random(rows) < 0.5, rng.integers(0, 6, rows), group)
    unrelated = rng.integers(0, 6, rows)
    often = rng.integers(0, 3 * rows, rows)  # an id that mostly stands alone
    columns = [group, noisy, unrelated, np.arange(rows), often]
    raw, excess = mutual_information(columns), excess_information(columns)
    assert raw[0, 3] > raw[0, 1]
    assert raw[0, 4] > raw[0, 1]
    assert excess[0, 3] == pytest.approx(0, abs=1e-9)
    assert abs(excess[0, 4]) < 0.05
    assert abs(excess[0, 2]) < 0.01
    assert excess[0, 1] == pytest.approx(raw[0, 1], abs=0.01)
    np.testing.assert_array_equal(excess, excess.T)


def test_the_excess_is_that_of_the_adjusted_score() -> None:
    """Vinh et al. 2010: (I - E[I]) / (mean entropy - E[I]), E[I] in closed form."""
    rng = np.random.default_rng(1)
    user = rng.integers(0, 300, 2_000)
    city = np.where(rng.random(2_000) < 0.4, rng.integers(0, 20, 2_000), user % 20)
    columns = [user, city]
    raw, excess = mutual_information(columns), excess_information(columns)
    chance = raw - excess
    adjusted = excess[0, 1] / (np.diag(raw).mean() - chance[0, 1])
    assert adjusted == pytest.approx(adjusted_mutual_info_score(user, city), abs=0.01)


@pytest.mark.parametrize("columns", [[], [np.array([])], [np.arange(3), np.arange(2)]])
def test_columns_of_no_common_length_are_refused(columns: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="columns of one length of at least 1"):
        mutual_information(columns)
