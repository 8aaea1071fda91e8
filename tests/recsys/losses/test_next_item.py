"""Losses of the next item against their definitions, question by question."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.losses.next_item import (
    full_softmax,
    generalised_bce,
    positive_logits,
    sampled_softmax,
)

NUM_CANDIDATES, NUM_ITEMS = 5, 40
POSITIVE = torch.tensor([0, 4, 5, 7, 2, 7])
"""Of eight items of the batch; three are no candidates."""
LOG_Q = torch.tensor([0.9, 0.5, 0.25, 1.0, 0.125]).log()

Loss = Callable[[Tensor, Tensor], Tensor]


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(6, 4, generator=generator, dtype=torch.double)
    return query, torch.randn(8, 4, generator=generator, dtype=torch.double)


def with_gradients(loss: Loss, dtype: torch.dtype) -> list[Tensor]:
    """Return the losses, and the gradients of a sum that counts each question otherwise."""
    query, item = (one.to(dtype).requires_grad_() for one in vectors())
    losses = loss(query, item)
    (losses * torch.tensor([1.0, -2.0, 0.5, 3.0, 0.1, 1.5])).sum().backward()
    assert query.grad is not None
    assert item.grad is not None
    return [losses.detach().double(), query.grad.double(), item.grad.double()]


def check(found: Loss, expected: Loss) -> None:
    """Compare in float32 with what autograd makes of a definition in float64."""
    pairs = zip(
        with_gradients(found, torch.float32), with_gradients(expected, torch.float64), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def sampled_by_hand(query: Tensor, item: Tensor, log_q: Tensor) -> Tensor:
    losses = []
    for number, positive in enumerate(POSITIVE.tolist()):
        own = torch.exp(query[number] @ item[positive])
        others = [
            torch.exp(query[number] @ item[c]) / torch.exp(log_q[c])
            for c in range(len(log_q))
            if c != positive
        ]
        losses.append(-torch.log(own / (own + sum(others))))
    return torch.stack(losses)


def test_a_positive_scores_as_its_own_item() -> None:
    query, item = vectors()
    expected = [float(q @ item[p]) for q, p in zip(query, POSITIVE.tolist(), strict=True)]
    assert positive_logits(query, item, POSITIVE).tolist() == pytest.approx(expected, rel=1e-5)
    assert positive_logits(query.bfloat16(), item.bfloat16(), POSITIVE).dtype == torch.float32


def test_the_full_softmax_is_cross_entropy() -> None:
    check(
        lambda query, item: full_softmax(query, item, POSITIVE),
        lambda query, item: F.cross_entropy(query @ item.T, POSITIVE, reduction="none"),
    )


def test_the_sampled_softmax_by_its_definition() -> None:
    check(
        lambda query, item: sampled_softmax(query, item, POSITIVE, LOG_Q),
        lambda query, item: sampled_by_hand(query, item, LOG_Q.double()),
    )


def test_a_sample_of_everything_is_the_full_softmax() -> None:
    everything = torch.zeros(8)
    check(
        lambda query, item: sampled_softmax(query, item, POSITIVE, everything),
        lambda query, item: F.cross_entropy(query @ item.T, POSITIVE, reduction="none"),
    )


def test_the_corrected_sum_over_negatives_is_unbiased() -> None:
    """Over many draws exp(loss) - 1 meets that of the softmax over the whole catalogue."""
    torch.manual_seed(0)
    logits = torch.randn(12) * 1.5
    q = torch.linspace(0.1, 0.9, 12)
    own, query = 4, torch.ones(1, 1)
    full = math.exp(float(full_softmax(query, logits[:, None], torch.tensor([own])))) - 1
    sums = []
    for _ in range(1_500):
        drawn = (torch.rand(12) < q).nonzero().flatten()
        found = (drawn == own).nonzero().flatten()
        position = found if len(found) else torch.tensor([len(drawn)])  # then beside the candidates
        items = torch.cat([logits[drawn], logits[own : own + 1]])
        sums.append(float(sampled_softmax(query, items[:, None], position, q[drawn].log()).expm1()))
    deviation = float(torch.tensor(sums).std()) / math.sqrt(len(sums))
    assert deviation < 0.2 * full
    assert abs(sum(sums) / len(sums) - full) < 4 * deviation


def gbce_by_hand(calibration: float, num_items: int = NUM_ITEMS) -> Loss:
    def loss(query: Tensor, item: Tensor) -> Tensor:
        losses = []
        for number, positive in enumerate(POSITIVE.tolist()):
            negatives = [c for c in range(NUM_CANDIDATES) if c != positive]
            share = len(negatives) / (num_items - 1)
            power = share * (calibration * (1 - 1 / share) + 1 / share)
            own = torch.sigmoid(query[number] @ item[positive])
            others = [torch.log(torch.sigmoid(-(query[number] @ item[c]))) for c in negatives]
            losses.append(-(torch.log(own**power) + sum(others)) / (len(negatives) + 1))
        return torch.stack(losses)

    return loss


def gbce(calibration: float, **changes: Any) -> Loss:
    sizes = {"num_candidates": NUM_CANDIDATES, "num_items": NUM_ITEMS, **changes}
    return lambda query, item: generalised_bce(
        query, item, POSITIVE, calibration=calibration, **sizes
    )


@pytest.mark.parametrize("calibration", [0.0, 0.3, 0.75, 1.0])
def test_generalised_bce_by_its_definition(calibration: float) -> None:
    check(gbce(calibration), gbce_by_hand(calibration))


def test_without_calibration_it_is_binary_cross_entropy() -> None:
    def plain(query: Tensor, item: Tensor) -> Tensor:
        logits, losses = query @ item.T, []
        for number, positive in enumerate(POSITIVE.tolist()):
            shown = [positive, *(c for c in range(NUM_CANDIDATES) if c != positive)]
            label = F.one_hot(torch.tensor(0), len(shown)).double()
            losses.append(F.binary_cross_entropy_with_logits(logits[number, shown], label))
        return torch.stack(losses)

    check(gbce(0.0), plain)


def test_full_calibration_undoes_the_sampling() -> None:
    """The mean over all samples of K negatives is that over all negatives, but for its scale."""
    torch.manual_seed(1)
    query, item = torch.randn(1, 3), torch.randn(7, 3)
    positive, k = 6, 2
    found = []
    for one in range(6):
        for two in range(one):
            rows = torch.tensor([one, two, positive])
            loss = generalised_bce(
                query,
                item[rows],
                torch.tensor([2]),
                num_candidates=k,
                num_items=7,
                calibration=1.0,
            )
            found.append(float(loss) * (k + 1))
    logits = (query @ item.T)[0]
    everything = F.softplus(-logits[positive]) + F.softplus(logits[:6]).sum()
    assert sum(found) / len(found) == pytest.approx(k / 6 * float(everything), rel=1e-5)


def test_a_sample_of_all_other_items_needs_no_calibration() -> None:
    query, item = (one.float() for one in vectors())
    for count in (8, 2):
        positive = POSITIVE % count
        plain, calibrated = (
            generalised_bce(
                query, item[:count], positive, num_candidates=count, num_items=count, calibration=t
            )
            for t in (0.0, 1.0)
        )
        torch.testing.assert_close(plain, calibrated)


def test_a_question_whose_own_item_is_the_only_candidate() -> None:
    query, item = torch.randn(1, 2, requires_grad=True), torch.randn(1, 2, requires_grad=True)
    only = torch.tensor([0])
    loss = sampled_softmax(query, item, only, torch.zeros(1))
    loss.sum().backward()
    assert float(loss.detach()) == 0
    assert query.grad is not None
    assert float(query.grad.abs().sum()) == 0
    for calibration in (0.0, 0.25):  # no negative at all: what is left is the positive's share
        alone = generalised_bce(
            query, item, only, num_candidates=1, num_items=1, calibration=calibration
        )
        expected = (1 - calibration) * F.softplus(-(query @ item.T))[0]
        torch.testing.assert_close(alone, expected)


def test_half_precision_is_coarse_and_no_more() -> None:
    query, item = (one.float() for one in vectors())
    losses: list[Loss] = [
        lambda q, i: full_softmax(q, i, POSITIVE),
        lambda q, i: sampled_softmax(q, i, POSITIVE, LOG_Q),
        gbce(0.5),
    ]
    for loss in losses:
        exact = loss(query, item)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = loss(query, item)
        assert coarse.dtype == torch.float32
        assert 0 < float((coarse - exact).abs().max()) < 0.1
