"""How many threads faiss uses."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let faiss use `count` threads; of this thread's calls alone."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
