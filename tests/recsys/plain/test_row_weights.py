"""Rows that count by weight: by hand where that is short, and all alike they change nothing."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import sparse

from recsys.plain.interactions import user_items
from recsys.plain.kind import Counted
from recsys.plain.neighbours import ItemKNN
from recsys.plain.popularity import Popularity
from recsys.plain.registry import PLAIN, fit_plain
from recsys.retrieval.follow import follow_counts

USER = np.array([0, 0, 0, 1, 1, 2], np.int32)
ITEM = np.array([0, 0, 1, 0, 1, 2], np.int32)
WEIGHT = np.array([0.1, 1, 0.5, 0.1, 1, 0.3], np.float32)
ROWS = Counted(
    user=USER,
    sequence=USER.astype(np.int64),
    item=ITEM,
    time=np.arange(6),
    num_items=3,
    attributes=(sparse.csr_array(np.array([[1, 0], [0, 1], [0, 1]], np.float32)),),
)
KINDS = [name for name in PLAIN if name != "ials" or find_spec("implicit")]


def test_a_pair_has_the_weight_of_its_heaviest_row() -> None:
    found = user_items(USER, ITEM, 3, weight=WEIGHT).toarray()
    np.testing.assert_allclose(found, [[1, 0.5, 0], [0.1, 1, 0], [0, 0, 0.3]])


def test_popularity_is_the_sum_of_the_weights_of_users() -> None:
    found = Popularity.fit(USER, ITEM, 3, weight=WEIGHT)
    np.testing.assert_allclose(found.num_users, [1 + 0.1, 0.5 + 1, 0.3], rtol=1e-6)


def test_neighbours_are_by_weighted_cosine() -> None:
    similarity = ItemKNN.fit(USER, ITEM, 3, shrinkage=0, weight=WEIGHT).similarity.toarray()
    norms = np.sqrt([1 + 0.01, 0.25 + 1])
    assert similarity[0, 1] == pytest.approx((1 * 0.5 + 0.1 * 1) / (norms[0] * norms[1]))


def test_a_step_counts_by_the_row_that_follows() -> None:
    counts = follow_counts(USER, ITEM, 3, steps=1, lag_decay=1, weight=WEIGHT).toarray()
    np.testing.assert_allclose(counts, [[1, 0.5 + 1, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_change_nothing_and_others_do(kind: str) -> None:
    config = PLAIN[kind].config()
    history = (np.array([0, 1]), np.array([0, 2]))
    alike = replace(ROWS, weight=np.ones(6, np.float32))
    plain, equal, unlike = (
        fit_plain(config, rows).score(*history)
        for rows in (ROWS, alike, replace(ROWS, weight=WEIGHT))
    )
    np.testing.assert_allclose(plain, equal, rtol=1e-5, atol=1e-7)
    assert not np.allclose(plain, unlike, rtol=1e-5, atol=1e-7)
