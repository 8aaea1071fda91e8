"""Where relevance ends: by hand, never turning a list round, kept as text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundle.relevance import Relevance, crowds_of

MAP = Relevance(
    slope=2.0, intercept=-1.0, threshold=0.25, crowd=-0.5, activity=1.0, sharpness=3.0, anchors=9
)


def test_a_map_by_hand() -> None:
    scores = np.array([[1.5, 0.5, -np.inf]], np.float32)
    found = MAP.logits(scores, np.array([4.0]), np.array([1]))
    # 2 score - 1 - 4 / 2 + log 2.
    expected = [0 + math.log(2), -2 + math.log(2), -math.inf]
    assert found[0] == pytest.approx(expected)
    assert MAP.chance == pytest.approx(1 / (1 + math.exp(-0.25)))


def test_a_crowd_is_the_logarithm_of_what_a_softmax_sums() -> None:
    queries, items = torch.randn(700, 2, 4), torch.randn(5, 4)
    found = crowds_of(queries, items, sharpness=3.0)
    for row in (0, 511, 512, 699):
        best = (queries[row].double() @ items.double().T).amax(0)
        assert found[row] == pytest.approx(math.log(sum(math.exp(3 * one) for one in best)))
    some = crowds_of(queries[:, 0], items, sharpness=3.0, anchors=3)
    least = crowds_of(queries[:, 0], items[[0, 2, 4]], sharpness=3.0)
    np.testing.assert_array_equal(some, least)


def test_a_map_of_the_score_alone_compares_nothing() -> None:
    assert Relevance(1.0, 0.0, 0.0).crowds(torch.ones(2, 3), torch.ones(4, 3)).tolist() == [0, 0]
    assert MAP.crowds(torch.ones(0, 3), torch.ones(4, 3)).shape == (0,)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30),
    st.floats(0, 1e3),
    st.floats(-1e3, 1e3),
    st.floats(-1e3, 1e3),
)
def test_the_chance_never_rises_along_a_list(
    values: list[float], slope: float, crowd: float, activity: float
) -> None:
    scores = -np.sort(-np.array([values], np.float32))
    found = Relevance(slope, 0.1, 0.0, crowd=crowd, activity=activity, anchors=1)
    z = found.logits(scores, np.array([0.7]), np.array([3]))[0]
    assert (z[1:] <= z[:-1]).all()


def test_a_map_is_kept_as_text() -> None:
    assert Relevance.from_json(MAP.to_json()) == MAP
