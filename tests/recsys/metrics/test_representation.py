"""Representation metrics on sets of vectors whose answer is known."""

import math

import pytest
import torch
from torch.nn import functional as F

from recsys.metrics.representation import alignment, rankme, uniformity


def test_rankme_of_known_spectra() -> None:
    basis, _ = torch.linalg.qr(torch.randn(40, 4))
    assert rankme(basis) == pytest.approx(4, rel=1e-5)
    assert rankme(torch.ones(50, 1) @ torch.randn(1, 8)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(5, 3)) == 0
    # Singular values 3 and 1: p = 3/4, 1/4.
    expected = math.exp(3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4))
    assert rankme(basis[:, :2] * torch.tensor([3.0, 1.0])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("rows", "width"), [(7, 20), (300, 16), (20_000, 5)])
def test_rankme_equals_the_paper_on_singular_values(rows: int, width: int) -> None:
    embeddings = torch.randn(rows, width) * torch.logspace(0, -3, width)
    sigma = torch.linalg.svdvals(embeddings.double())
    p = sigma / sigma.sum() + 1e-7
    assert rankme(embeddings) == pytest.approx(float((-p * p.log()).sum().exp()), rel=1e-3)


def test_alignment_of_known_angles() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    # Squared distances 0, 2 and 4.
    assert alignment(x, y) == pytest.approx(6 / 3)


def test_uniformity_equals_the_paper_on_pairs() -> None:
    x = F.normalize(torch.randn(1500, 6), dim=1)
    expected = torch.pdist(x).square().mul(-2).exp().mean().log()
    assert uniformity(x) == pytest.approx(float(expected), rel=1e-5)
    assert uniformity(x, max_rows=700) == pytest.approx(float(expected), rel=0.03)
    assert uniformity(x[:1].expand(9, -1)) == pytest.approx(0, abs=1e-5)
    # Two opposite points: one pair, squared distance 4.
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8, rel=1e-4)
    with pytest.raises(ValueError, match="two rows"):
        uniformity(x[:1])
