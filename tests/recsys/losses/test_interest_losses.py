"""Losses of queries with several interests: a score is the best over them, in every loss."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses.retrieval import (
    Negatives,
    Pairs,
    bce_loss,
    bpr_loss,
    cosine_contrastive_loss,
    metric_loss,
    softmax_loss,
)

EXCLUDED = Jagged(torch.tensor([1, 4, 0, 2, 3, 5]), torch.tensor([0, 2, 3, 6]))
PAIRS = Pairs(
    torch.tensor([0, 0, 1, 2]), torch.tensor([1, 4, 0, 3]), torch.tensor([1.0, 2.0, 3.0, 0.5])
)
LOG_Q = torch.tensor([0.9, 0.5, 0.25, 1.0, 0.125, 0.6]).log()
Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    """Three queries of two interests, six candidates."""
    generator = torch.Generator().manual_seed(3)
    query = F.normalize(torch.randn(3, 2, 4, generator=generator), dim=2)
    return query, F.normalize(torch.randn(6, 4, generator=generator), dim=1)


def negatives_of(query: int) -> list[int]:
    return [c for c in range(6) if c not in EXCLUDED.take(torch.tensor([query])).values.tolist()]


def by_loops(
    vectors: tuple[Tensor, Tensor], one: Callable[[float, int, list[float]], float]
) -> float:
    """Return the weighted mean over pairs of one(positive's score, query, negatives' scores)."""
    best = torch.einsum("bie,ce->bic", *vectors).amax(1)
    total = 0.0
    rows = zip(PAIRS.asks.tolist(), PAIRS.positive.tolist(), PAIRS.weight.tolist(), strict=True)
    for query, positive, weight in rows:
        others = [float(best[query, c]) for c in negatives_of(query)]
        total += weight * one(float(best[query, positive]), query, others)
    return total / float(PAIRS.weight.sum())


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_softmax_is_of_a_mixture_of_the_interests(vectors: tuple[Tensor, Tensor]) -> None:
    each = torch.einsum("bie,ce->bic", *vectors)

    total = 0.0
    rows = zip(PAIRS.asks.tolist(), PAIRS.positive.tolist(), PAIRS.weight.tolist(), strict=True)
    for query, item, weight in rows:
        positive = sum(math.exp(float(each[query, i, item])) for i in range(2))
        negatives = sum(
            math.exp(float(each[query, i, c]) - float(LOG_Q[c]))
            for c in negatives_of(query)
            for i in range(2)
        )
        total += weight * math.log1p(negatives / positive)
    found = softmax_loss(*vectors, PAIRS, EXCLUDED, LOG_Q)
    assert float(found) == pytest.approx(total / float(PAIRS.weight.sum()), abs=1e-5)


def test_other_losses_take_the_best_interest(vectors: tuple[Tensor, Tensor]) -> None:
    shares = Negatives.of(EXCLUDED, 6)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    expected: dict[str, tuple[Tensor, Callable[[float, int, list[float]], float]]] = {
        "bce": (
            bce_loss(*vectors, PAIRS, shares, 0.5),
            lambda s, _, o: softplus(-s) + 0.5 * mean([softplus(x) for x in o]),
        ),
        "bpr": (
            bpr_loss(*vectors, PAIRS, shares),
            lambda s, _, o: mean([softplus(x - s) for x in o]),
        ),
        "cosine": (
            cosine_contrastive_loss(*vectors, PAIRS, shares, margin=0.1, negative_weight=3.0),
            lambda s, _, o: 1 - s + 3 * mean([max(0.0, x - 0.1) for x in o]),
        ),
        "metric": (
            metric_loss(
                *vectors, PAIRS, shares, margin=0.5, num_items=6, rank_weight=False, worst=False
            ),
            lambda s, _, o: mean([max(0.0, 0.5 + 2 * (x - s)) for x in o]),
        ),
    }
    for name, (found, one) in expected.items():
        assert float(found) == pytest.approx(by_loops(vectors, one), abs=1e-5), name


def test_one_interest_is_a_plain_query(vectors: tuple[Tensor, Tensor]) -> None:
    query, candidate = vectors
    alone = query[:, :1]
    shares = Negatives.of(EXCLUDED, 6)
    losses: list[Loss] = [
        lambda q, c: softmax_loss(q, c, PAIRS, EXCLUDED, LOG_Q),
        lambda q, c: bce_loss(q, c, PAIRS, shares),
        lambda q, c: bpr_loss(q, c, PAIRS, shares),
        lambda q, c: metric_loss(q, c, PAIRS, shares, margin=0.5, num_items=6),
    ]
    for loss in losses:
        torch.testing.assert_close(loss(alone, candidate), loss(alone[:, 0], candidate))


def test_every_interest_learns_what_not_to_retrieve(vectors: tuple[Tensor, Tensor]) -> None:
    """Also one that is nearest to no positive of its query."""
    query, candidate = vectors
    query = query.clone().requires_grad_()
    far = query.index_select(1, torch.tensor([0, 1]))
    softmax_loss(far, candidate, PAIRS, EXCLUDED).backward()
    assert query.grad is not None
    assert bool((query.grad.abs().sum(2) > 0).all())
