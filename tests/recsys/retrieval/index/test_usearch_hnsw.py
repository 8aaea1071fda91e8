"""usearch's own ways: one query without an axis, too few found, files that are none of its."""

import numpy as np
import pytest

from recsys.core.errors import IntegrityError
from recsys.retrieval.index.usearch_hnsw import Usearch, UsearchGraph


@pytest.fixture(scope="module")
def graph() -> UsearchGraph:
    points = np.eye(4, dtype=np.float32)
    return Usearch().build(points, "inner_product", 1)


@pytest.mark.parametrize("queries", [1, 3])
def test_where_fewer_are_found_there_is_no_row(graph: UsearchGraph, queries: int) -> None:
    asked = np.tile(np.array([[4, 3, 2, 1]], np.float32), (queries, 1))
    scores, rows = graph.search(asked, 6, 64, 1)
    assert rows.tolist() == [[0, 1, 2, 3, -1, -1]] * queries
    assert scores.tolist() == [[4, 3, 2, 1, -np.inf, -np.inf]] * queries
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_squared_distances_become_scores() -> None:
    graph = Usearch().build(np.array([[0, 0], [3, 4]], np.float32), "l2", 1)
    scores, rows = graph.search(np.zeros((2, 2), np.float32), 2, 64, 1)
    assert rows.tolist() == [[0, 1]] * 2
    assert scores.tolist() == [[0, -12.5]] * 2  # minus half of 5 squared


def test_what_was_written_answers_again(graph: UsearchGraph) -> None:
    again = Usearch().read(graph.to_bytes(), "inner_product")
    assert again.shape == graph.shape == (4, 4)
    asked = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    found = again.search(asked, 3, 64, 1), graph.search(asked, 3, 64, 1)
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_other_bytes_are_no_graph() -> None:
    with pytest.raises(IntegrityError, match=r"index\.usearch: no graph of usearch \(Not a dense"):
        Usearch().read(b"not a graph at all" * 40, "l2")
