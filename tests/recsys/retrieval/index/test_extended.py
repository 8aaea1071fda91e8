"""An index with more items behind it finds what one over all of them finds."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.batch import Jagged
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.extended import Extended, extended
from recsys.retrieval.index.graph import GraphBackend
from recsys.retrieval.index.registry import BACKENDS

GRAPHS = [
    kind
    for kind, one in BACKENDS.items()
    if isinstance(one, GraphBackend) and find_spec(one.library.module) is not None
]
FIRST, MORE = 30, 11


@given(st.integers(0, 2**31), st.integers(1, 50), st.booleans())
def test_both_parts_are_searched(seed: int, k: int, hide: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.integers(-2, 3, (FIRST + MORE, 3)).astype(np.float32))
    queries = torch.from_numpy(rng.integers(-2, 3, (4, 3)).astype(np.float32))
    lengths = rng.integers(0, FIRST + MORE, 4)
    drawn = [rng.choice(FIRST + MORE, size, replace=False) for size in lengths]
    hidden = Jagged.of_lengths(np.concatenate(drawn), lengths) if hide else None
    index = Extended(ExactVectors(vectors[:FIRST]), vectors[FIRST:])
    found = index.search(queries, k, hidden)
    wanted = ExactVectors(vectors).search(queries, k, hidden)
    torch.testing.assert_close(found[0], wanted[0])
    assert found[1].tolist() == wanted[1].tolist()
    assert (len(index), index.dim) == (FIRST + MORE, 3)


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_goes_on_and_exact_search_stays_exact(kind: str) -> None:
    vectors = torch.randn(FIRST + MORE, 4)
    backend = BACKENDS[kind]
    assert isinstance(backend, GraphBackend)
    index = extended(backend.index_of(vectors[:FIRST], "sphere"), vectors[:FIRST], vectors[FIRST:])
    wanted = extended(ExactVectors(vectors[:FIRST]), vectors[:FIRST], vectors[FIRST:])
    assert isinstance(wanted, ExactVectors)
    queries = torch.randn(5, 4)
    assert index.search(queries, 8)[1].tolist() == wanted.search(queries, 8)[1].tolist()
