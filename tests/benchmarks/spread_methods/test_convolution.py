"""Inverse graph convolution against loops, and by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import skew
from spread_methods.convolution import Message, messages, skewness, spread
from torch import Tensor
from torch.nn import functional as F


def drawn(num: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(num, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("message", ["all", "local", "mean"])
@pytest.mark.parametrize("own", [True, False])
def test_messages_are_their_definition(message: Message, own: bool) -> None:
    items = drawn(9, 0)
    others = items if own else drawn(7, 1)
    cosine = (items @ others.T).numpy()
    rows = []
    for item in range(9):
        near = np.argsort(-cosine[item])[int(own) : 3 + int(own)]
        if message == "all":
            weights = {other: c - cosine.mean() for other, c in enumerate(cosine[item])}
        else:
            weights = {other: cosine[item][other] if message == "local" else 1 for other in near}
        rows.append(sum(w * others[other].numpy() for other, w in weights.items()))
    expected = np.stack(rows) / np.linalg.norm(rows, axis=1).mean()
    np.testing.assert_allclose(messages(items, others, message, 3), expected, atol=1e-5)


def test_lengths_and_biases_stay_and_no_rate_moves_nothing() -> None:
    vectors = torch.cat([3 * drawn(6, 0), drawn(6, 1)[:, :1]], 1)
    around = (drawn(6, 2), drawn(6, 3))
    torch.testing.assert_close(spread(vectors, "dot", around, (0.0, 0.0)), vectors)
    moved = spread(vectors, "dot", around, (0.5, 0.2))
    torch.testing.assert_close(moved[:, :4].norm(dim=1), vectors[:, :4].norm(dim=1))
    assert torch.equal(moved[:, 4], vectors[:, 4])


def test_two_near_items_part_by_hand() -> None:
    items = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    around = messages(items, items, "mean", 1)  # each other
    assert torch.equal(around, items.flip(0))
    moved = spread(items, "sphere", (around, torch.zeros(2, 2)), (1.0, 0.0))
    # (1, 0) - (0.8, 0.6) = (0.2, -0.6), of length 0.632; the mean of its direction and (1, 0).
    expected = F.normalize(torch.tensor([0.2, -0.6]) / 0.4**0.5 + torch.tensor([1.0, 0.0]), dim=0)
    torch.testing.assert_close(moved[0], expected)
    assert float(moved[0] @ moved[1]) < 0.8


def test_skewness_is_scipys() -> None:
    counts = torch.tensor([0, 0, 1, 1, 2, 9, 30])
    assert skewness(counts) == pytest.approx(skew(counts.numpy()))
