"""faiss's own ways: threads of its own, which other searches of the process share."""

from collections.abc import Iterator

import faiss
import numpy as np
import pytest

from recsys.retrieval.index.faiss_hnsw import Faiss


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_one_thread_builds_whatever_the_process_may_use() -> None:
    points = np.random.default_rng(0).standard_normal((2_000, 16)).astype(np.float32)
    built = {Faiss().build(points, "inner_product", 1).to_bytes() for _ in range(3)}
    assert len(built) == 1
    assert faiss.omp_get_max_threads() == 2
    Faiss().build(points, "l2", 1).search(points[:3], 5, 64, 1)
    assert faiss.omp_get_max_threads() == 2
