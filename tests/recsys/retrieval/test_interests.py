"""Several query vectors: merging by definition, and one encoding that stands for all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.interests import merged, search
from recsys.retrieval.muvera import FixedDimensionalEncoding


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 1000))
def test_a_list_is_that_of_the_best_interest_of_every_item(
    interests: int, k: int, seed: int
) -> None:
    items, queries = unit(24, 8, seed=seed), unit(6, interests, 8, seed=seed + 1)
    exclude = Jagged.of_lengths(
        torch.randperm(24)[:18].numpy(), torch.tensor([3, 0, 5, 4, 2, 4]).numpy()
    )
    scores, rows = search(ExactVectors(items), queries, k, exclude)
    best = torch.einsum("bie,ne->bin", queries, items).amax(1)
    for query in range(6):
        best[query, exclude.take(torch.tensor([query])).values] = -torch.inf
    wanted = best.sort(dim=1, descending=True, stable=True)
    count = min(k, 24)
    torch.testing.assert_close(scores[:, :count], wanted.values[:, :count])
    left = wanted.values[:, :count] > -torch.inf
    assert torch.equal(rows[:, :count], wanted.indices[:, :count].masked_fill(~left, -1))


def test_a_query_of_one_vector_is_searched_as_it_is() -> None:
    items, queries = unit(9, 4), unit(3, 4, seed=1)
    for one, other in zip(
        search(ExactVectors(items), queries, 5),
        search(ExactVectors(items), queries.unsqueeze(1), 5),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_merging_keeps_the_best_mention_and_orders_ties_by_row() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.9, 0.5, -torch.inf]])
    rows = torch.tensor([[7, 2, 2, 3, -1]])
    best, found = merged(scores, rows, 5)
    assert found.tolist() == [[2, 3, 7, -1, -1]]
    assert best.tolist() == [[pytest.approx(0.9), 0.5, 0.5, -torch.inf, -torch.inf]]


def test_an_encoding_by_its_definition() -> None:
    """Two hyperplanes, one repetition: blocks of the cells, counted by hand."""
    # Cell 1: x > 0; cell 2: y > 0; cell 3: both.
    encoding = FixedDimensionalEncoding.of_planes(torch.eye(2).unsqueeze(0))
    items = torch.tensor([[1.0, 2.0], [-1.0, 3.0]])
    blocks = encoding.items(items).view(2, 4, 2)
    assert blocks[0].tolist() == [[0, 0], [0, 0], [0, 0], [1, 2]]
    assert blocks[1].tolist() == [[0, 0], [0, 0], [-1, 3], [0, 0]]
    query = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [-1.0, 1.0]]])
    # Cell 3 holds two, cell 2 one; cell 1 is one plane from cell 3's first, cell 0 from cell 2's.
    assert encoding.queries(query).view(4, 2).tolist() == [[-1, 1], [1, 1], [-1, 1], [2, 1]]


def test_one_interest_is_encoded_without_loss() -> None:
    encoding = FixedDimensionalEncoding(8, bits=3, repetitions=4)
    items, queries = unit(20, 8), unit(5, 1, 8, seed=1)
    products = encoding.queries(queries) @ encoding.items(items).T
    torch.testing.assert_close(products, queries[:, 0] @ items.T)
    assert encoding.items(items).shape == (20, encoding.width)


def test_more_cells_and_repetitions_come_nearer_to_the_best_interest() -> None:
    items, queries = unit(500, 16), unit(50, 4, 16, seed=1)
    truth = torch.einsum("bie,ne->bin", queries, items).amax(1)
    errors = []
    for bits, repetitions in ((0, 1), (2, 4), (4, 20)):
        encoding = FixedDimensionalEncoding(16, bits=bits, repetitions=repetitions)
        products = encoding.queries(queries) @ encoding.items(items).T
        assert float((products - truth).max()) < 1e-5  # a mean of products, never above the best
        errors.append(float((truth - products).mean()))
    assert errors[0] > errors[1] > errors[2]


def test_what_cannot_be_encoded_is_refused() -> None:
    for settings_ in ({"bits": 11}, {"repetitions": 0}):
        with pytest.raises(ValueError, match=r"bits in 0\.\.10"):
            FixedDimensionalEncoding(4, **settings_)
