"""Losses of retrieval and their corrections, against definitions written out in loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses import chunked as chunked_losses
from recsys.losses.chunked import negative_logsumexp
from recsys.losses.retrieval import (
    Negatives,
    Pairs,
    bce_loss,
    bpr_loss,
    cosine_contrastive_loss,
    covariance_loss,
    metric_loss,
    softmax_loss,
)

EXCLUDED = Jagged(torch.tensor([1, 4, 0, 2, 3, 5]), torch.tensor([0, 2, 3, 6]))
"""Three queries, six candidates: {1, 4}, {0}, {2, 3, 5} are no negatives."""
PAIRS = Pairs(
    torch.tensor([0, 0, 1, 2]), torch.tensor([1, 4, 0, 3]), torch.tensor([1.0, 2.0, 3.0, 0.5])
)
LOG_Q = torch.tensor([0.9, 0.5, 0.25, 1.0, 0.125, 0.6]).log()


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    query = F.normalize(torch.randn(3, 4, generator=generator), dim=1)
    candidate = F.normalize(torch.randn(6, 4, generator=generator), dim=1)
    return query, candidate


def negatives_of(query: int) -> list[int]:
    return [c for c in range(6) if c not in EXCLUDED.take(torch.tensor([query])).values.tolist()]


def by_loops(
    vectors: tuple[Tensor, Tensor], one: Callable[[int, float, dict[int, float]], float]
) -> float:
    """Return the weighted mean over pairs of one(query, positive score, negatives' scores)."""
    scores = vectors[0] @ vectors[1].T
    total = 0.0
    rows = zip(PAIRS.asks.tolist(), PAIRS.positive.tolist(), PAIRS.weight.tolist(), strict=True)
    for query, positive, weight in rows:
        others = {c: float(scores[query, c]) for c in negatives_of(query)}
        total += weight * one(query, float(scores[query, positive]), others)
    return total / float(PAIRS.weight.sum())


def shares(query: int, corrected: bool) -> dict[int, float]:
    raw = {c: math.exp(-float(LOG_Q[c])) if corrected else 1.0 for c in negatives_of(query)}
    return {c: value / sum(raw.values()) for c, value in raw.items()}


@pytest.mark.parametrize("corrected", [True, False])
def test_softmax_by_its_definition(vectors: tuple[Tensor, Tensor], corrected: bool) -> None:
    def one(query: int, positive: float, others: dict[int, float]) -> float:
        q = {c: math.exp(float(LOG_Q[c])) if corrected else 1.0 for c in others}
        below = math.exp(positive) + sum(math.exp(s) / q[c] for c, s in others.items())
        return -math.log(math.exp(positive) / below)

    found = softmax_loss(*vectors, PAIRS, EXCLUDED, LOG_Q if corrected else None)
    assert float(found) == pytest.approx(by_loops(vectors, one), rel=1e-5)


@pytest.mark.parametrize("corrected", [True, False])
def test_pointwise_and_pairwise_losses_by_their_definitions(
    vectors: tuple[Tensor, Tensor], corrected: bool
) -> None:
    negatives = Negatives.of(EXCLUDED, 6, LOG_Q if corrected else None)

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    def mean(query: int, others: dict[int, float], of: Callable[[float], float]) -> float:
        share = shares(query, corrected)
        return sum(share[c] * of(s) for c, s in others.items())

    def bce(query: int, positive: float, others: dict[int, float]) -> float:
        return softplus(-positive) + 0.7 * mean(query, others, softplus)

    def bpr(query: int, positive: float, others: dict[int, float]) -> float:
        return mean(query, others, lambda s: softplus(s - positive))

    def contrastive(query: int, positive: float, others: dict[int, float]) -> float:
        return 1 - positive + 5 * mean(query, others, lambda s: max(0.0, s - 0.1))

    def metric(query: int, positive: float, others: dict[int, float]) -> float:
        gaps = {c: 0.5 + (2 - 2 * positive) - (2 - 2 * s) for c, s in others.items()}
        inside = sum(shares(query, corrected)[c] for c, gap in gaps.items() if gap > 0)
        return math.log(1 + 1000 * inside) * max(0.0, *gaps.values())

    wanted: list[tuple[Any, Callable[[int, float, dict[int, float]], float]]] = [
        (bce_loss(*vectors, PAIRS, negatives, 0.7), bce),
        (bpr_loss(*vectors, PAIRS, negatives), bpr),
        (
            cosine_contrastive_loss(*vectors, PAIRS, negatives, margin=0.1, negative_weight=5),
            contrastive,
        ),
        (metric_loss(*vectors, PAIRS, negatives, margin=0.5, num_items=1000), metric),
    ]
    for found, one in wanted:
        assert float(found) == pytest.approx(by_loops(vectors, one), rel=1e-5), one.__name__
    flat = metric_loss(*vectors, PAIRS, negatives, margin=0.5, num_items=1000, rank_weight=False)
    assert float(flat) < float(wanted[3][0])


def test_a_share_of_a_batch_is_divided_by_the_whole(vectors: tuple[Tensor, Tensor]) -> None:
    whole = softmax_loss(*vectors, PAIRS, EXCLUDED)
    parts = []
    for rows in ([0, 1], [2, 3]):
        own = [part[rows] for part in (PAIRS.asks, PAIRS.positive, PAIRS.weight)]
        parts.append(softmax_loss(*vectors, Pairs(*own, total=6.5), EXCLUDED))
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("tile", [(1, 1), (2, 4), (3, 6), (2, 5), (100, 100)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_the_chunked_denominator_is_the_plain_one_with_its_gradients(
    vectors: tuple[Tensor, Tensor],
    tile: tuple[int, int],
    biased: bool,
    kept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunked_losses, "KEPT_BYTES", 3 * 6 * 4 - (not kept))
    bias = -LOG_Q if biased else None
    results = []
    for chunked in (True, False):
        query, candidate = (one.clone().requires_grad_() for one in vectors)
        if chunked:
            found = negative_logsumexp(query, candidate, EXCLUDED, bias, tile=tile)
        else:
            logits = query @ candidate.T + (0 if bias is None else bias)
            mask = torch.zeros(3, 6, dtype=torch.bool)
            for row in range(3):
                mask[row, EXCLUDED.take(torch.tensor([row])).values] = True
            found = logits.masked_fill(mask, -torch.inf).logsumexp(1)
        (found * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        results.append((found.detach(), query.grad, candidate.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kept", [True, False])
def test_a_query_without_a_negative_has_no_loss_and_no_gradient(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_losses, "KEPT_BYTES", 4 if kept else 0)
    query = torch.ones(1, 2, requires_grad=True)
    candidate = torch.ones(1, 2, requires_grad=True)
    all_excluded = Jagged(torch.tensor([0]), torch.tensor([0, 1]))
    only = Pairs(torch.tensor([0]), torch.tensor([0]), torch.ones(1))
    loss = softmax_loss(query, candidate, only, all_excluded)
    loss.backward()
    assert float(loss.detach()) == 0
    assert query.grad is not None
    assert query.grad.abs().sum() == 0
    negatives = Negatives.of(all_excluded, 1)
    assert float(bpr_loss(query, candidate, only, negatives).detach()) == 0


def test_the_chunked_denominator_runs_in_bfloat16_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    query, candidate = (torch.randn(64, 16, generator=generator) for _ in range(2))
    nothing = Jagged(torch.zeros(0, dtype=torch.int64), torch.zeros(65, dtype=torch.int64))
    exact = negative_logsumexp(query, candidate, nothing)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = negative_logsumexp(query, candidate, nothing)
    assert coarse.dtype == torch.float32
    assert 0 < float((coarse - exact).abs().max()) < 0.1


def test_corrected_sum_over_negatives_is_unbiased() -> None:
    """Over many draws the corrected sum of exponentials meets the full softmax's."""
    torch.manual_seed(0)
    logits = torch.randn(12) * 1.5
    probability = torch.linspace(0.1, 0.9, 12)
    own = 4
    full = float(logits.exp().sum() - logits[own].exp())
    sums = []
    for _ in range(10_000):
        drawn = torch.rand(12) < probability
        drawn[own] = True
        columns = drawn.nonzero().flatten()
        at = (columns == own).nonzero().flatten()
        excluded = Jagged(at, torch.tensor([0, 1]))
        found = negative_logsumexp(
            torch.ones(1, 1), logits[columns].unsqueeze(1), excluded, -probability[columns].log()
        )
        sums.append(float(found.exp()))
    deviation = float(torch.tensor(sums).std()) / math.sqrt(len(sums))
    assert abs(sum(sums) / len(sums) - full) < 4 * deviation


def test_covariance_of_coordinates_that_repeat_each_other() -> None:
    repeated = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert float(covariance_loss(repeated)) == pytest.approx((1 + 1) / 2)
    apart = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]) + 5
    assert float(covariance_loss(apart)) == pytest.approx(0)
