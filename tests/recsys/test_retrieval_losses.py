"""Sampled softmax and its corrections, against definitions written out."""

import math

import pytest
import torch

from recsys.losses.retrieval import correct_log_odds, softmax_loss


def test_loss_is_the_weighted_mean_of_minus_log_softmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    loss = softmax_loss(logits, torch.tensor([1, 0]), torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx((-math.log(3 / 4) + 3 * math.log(2)) / 4)


def test_corrected_denominator_is_unbiased() -> None:
    """Over many draws the corrected sum of exponentials meets the full softmax's."""
    torch.manual_seed(0)
    logits = torch.randn(12) * 1.5
    probability = torch.linspace(0.1, 0.9, 12)
    positive = 4
    full = float(logits.exp().sum())
    sums = []
    for _ in range(20_000):
        drawn = torch.rand(12) < probability
        drawn[positive] = True
        columns = drawn.nonzero().flatten()
        at = (columns == positive).nonzero().flatten()
        corrected = correct_log_odds(logits[columns].unsqueeze(0), probability[columns].log(), at)
        sums.append(float(corrected.exp().sum()))
    deviation = float(torch.tensor(sums).std()) / math.sqrt(len(sums))
    assert abs(sum(sums) / len(sums) - full) < 4 * deviation


def test_the_positive_keeps_its_logit_and_the_others_lose_their_log_probability() -> None:
    logits, probability = torch.tensor([[1.0, 2.0, 3.0]] * 2), torch.tensor([0.5, 0.25, 1.0])
    found = correct_log_odds(logits, probability.log(), torch.tensor([1, 2]))
    half, quarter = math.log(2), math.log(4)
    expected = torch.tensor([[1 + half, 2.0, 3.0], [1 + half, 2 + quarter, 3.0]])
    torch.testing.assert_close(found, expected)
