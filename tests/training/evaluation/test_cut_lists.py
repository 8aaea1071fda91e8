"""Lists that are cut: thresholds by hand and against trying all of them, what is left of lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundle.relevance import Relevance
from recsys.training.evaluation import cut_lists as module
from recsys.training.evaluation.cut_lists import (
    Kept,
    ScoredLists,
    cut_lists,
    threshold_of_precision,
    threshold_of_recall,
)

SCORES = np.array([[4.0, 3.0, 1.0], [2.5, 2.0, -np.inf]], np.float32)
HIT = np.array([[True, False, True], [False, True, False]])
BY_SCORE = Relevance(slope=1.0, intercept=0.0, threshold=2.0, k=3)


def lists_of(scores: np.ndarray, hit: np.ndarray, num_relevant: list[int]) -> ScoredLists:  # type: ignore[type-arg]
    count = len(scores)
    return ScoredLists(
        scores=scores,
        hit=hit & (scores > -np.inf),
        crowds=np.zeros(count),
        num_steps=np.zeros(count, np.int64),
        num_seen=np.arange(count) * 7,
        num_relevant=np.array(num_relevant),
    )


@pytest.fixture
def two() -> ScoredLists:
    """Two lists; recall 2 / 4 and 1 / 1."""
    return lists_of(SCORES, HIT, [4, 1])


def test_what_is_left_by_hand(two: ScoredLists) -> None:
    found = cut_lists(two, BY_SCORE)
    assert found.whole == Kept(2, precision=3 / 5, recall=(2 / 4 + 1) / 2, length=5 / 2, cut=0.0)
    assert found.kept == Kept(2, precision=2 / 4, recall=(1 / 4 + 1) / 2, length=4 / 2, cut=1 / 2)
    assert found.recall_kept == pytest.approx(0.625 / 0.75)
    assert found.by_length.tolist() == [1 / 8, 5 / 8, 6 / 8]
    assert found.shorter == 2
    assert list(found.slices) == ["users: 0 events", "users: 5-19 events"]
    assert found.slices["users: 0 events"][1] == Kept(1, 1 / 2, 1 / 4, 2.0, 1.0)
    assert found.curve.length[0] == 5 / 2  # the smallest threshold keeps everything
    assert found.curve.recall[0] == 3 / 4
    assert (np.diff(found.curve.length) <= 0).all()
    assert found.metrics()["relevance_recall_kept"] == found.recall_kept


def test_thresholds_by_hand(two: ScoredLists, monkeypatch: pytest.MonkeyPatch) -> None:
    z = two.logits(BY_SCORE)
    assert threshold_of_recall(z, two, 0.16) == 4.0  # 1 / 4 of 6 / 4
    assert threshold_of_recall(z, two, 0.17) == 2.0  # 5 / 4 of 6 / 4
    assert threshold_of_recall(z, two, 0.99) == 1.0
    assert threshold_of_precision(z, two, 0.1) is None  # three hits are too few
    monkeypatch.setattr(module, "LEAST_HITS", 1)
    assert threshold_of_precision(z, two, 0.6) == 1.0
    assert threshold_of_precision(z, two, 0.61) == 4.0
    monkeypatch.setattr(module, "LEAST_HITS", 2)
    assert threshold_of_precision(z, two, 0.61) is None


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_thresholds_are_the_best_of_all(seed: int, goal: float) -> None:
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.integers(0, 9, (6, 5)).astype(np.float32))  # with ties
    relevant = rng.integers(5, 8, 6)
    lists = lists_of(scores, rng.random((6, 5)) < 0.4, relevant.tolist())
    if not lists.hit.any():
        return
    z = lists.logits(BY_SCORE)
    kept = {t: Kept.of(lists, z >= t) for t in sorted({float(one) for one in z.ravel()})}
    whole = Kept.of(lists, lists.there).recall
    enough = [t for t, one in kept.items() if one.recall >= goal * whole * (1 - 1e-9)]
    assert threshold_of_recall(z, lists, goal) == max(enough)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_HITS", 1)
        found = threshold_of_precision(z, lists, goal)
    precise = [t for t, one in kept.items() if one.precision >= goal and one.recall > 0]
    assert found == min(precise, default=None)
