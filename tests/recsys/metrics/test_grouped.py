"""Metrics within groups: by hand, and against scikit-learn group by group."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from recsys.metrics.grouped import GroupedRows, gauc, weighted_mean


def test_gauc_by_hand() -> None:
    """User 7: of 2 x 1 pairs one is right; user 3: the one pair is tied; user 5: no negative."""
    group = np.array([7, 3, 7, 5, 3, 7])
    label = np.array([1, 1, 0, 1, 0, 1.0])
    score = np.array([0.9, 0.5, 0.6, 0.1, 0.5, 0.2])
    rows = GroupedRows.of(score, group)
    assert rows.auc(label).tolist() == pytest.approx([1 / 2, np.nan, 1 / 2], nan_ok=True)
    score = np.array([0.9, 0.5, 0.6, 0.1, 0.4, 0.7])
    assert gauc(score, label, group) == pytest.approx((3 * 1 + 2 * 1) / 5)
    score = np.array([0.9, 0.3, 0.6, 0.1, 0.4, 0.7])
    assert gauc(score, label, group) == pytest.approx((3 * 1 + 2 * 0) / 5)


def test_ndcg_by_hand() -> None:
    group, score = np.array([0, 0, 0, 0]), np.array([4.0, 3.0, 2.0, 1.0])
    label = np.array([0, 1, 0, 1.0])
    rows = GroupedRows.of(score, group)
    third, ideal = 1 / np.log2(3), 1 + 1 / np.log2(3)
    assert rows.ndcg(label, 3) == pytest.approx(third / ideal)
    assert rows.ndcg(label, 4) == pytest.approx((third + 1 / np.log2(5)) / ideal)
    assert rows.ndcg(label, 1) == pytest.approx(0)
    tied = GroupedRows.of(np.array([1.0, 1.0, 0.0, 0.0]), group)
    assert tied.ndcg(np.array([0, 1, 0, 0.0]), 1) == pytest.approx(1 / 2)
    assert np.isnan(rows.ndcg(np.ones(4), 2)).all()
    assert np.isnan(rows.ndcg(np.zeros(4), 2)).all()
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        rows.ndcg(label, 0)


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 6), st.integers(1, 5))
def test_as_scikit_learn_group_by_group(seed: int, rows: int, groups: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    group, label = rng.integers(-2, groups, rows), rng.integers(0, 2, rows).astype(np.float64)
    score = rng.integers(0, 4, rows) / 4  # many ties
    found = GroupedRows.of(score, group)
    aucs, ndcgs = found.auc(label), found.ndcg(label, k)
    sizes, expected = [], []
    for number, one in enumerate(np.unique(group)):
        own = group == one
        sizes.append(own.sum())
        if 0 < label[own].sum() < own.sum():
            expected.append(roc_auc_score(label[own], score[own]))
            assert aucs[number] == pytest.approx(expected[-1])
            assert ndcgs[number] == pytest.approx(ndcg_score([label[own]], [score[own]], k=k))
        else:
            expected.append(np.nan)
            assert np.isnan(aucs[number])
            assert np.isnan(ndcgs[number])
    assert found.sizes.tolist() == sizes
    mean = weighted_mean(np.array(expected), np.array(sizes))
    assert gauc(score, label, group) == pytest.approx(mean, nan_ok=True)


def test_a_shift_of_a_users_scores_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    group, label, score = rng.integers(0, 9, 300), rng.integers(0, 2, 300), rng.random(300)
    shifted = score + 10 * group
    assert gauc(shifted, label, group) == pytest.approx(gauc(score, label, group))
    assert roc_auc_score(label, shifted) != pytest.approx(roc_auc_score(label, score))
