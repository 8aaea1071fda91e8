"""The rotation between two spaces: by hand, and found again where there is one."""

import pytest
import torch

from recsys.retrieval.rotation import rotation_onto


def test_a_quarter_turn_by_hand() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    turned = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # each by 90 degrees to the left
    expected = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    torch.testing.assert_close(rotation_onto(points, turned), expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_rotation_is_found_again_and_nothing_is_nearer_than_what_is_found(seed: int) -> None:
    torch.manual_seed(seed)
    points, (true, _) = torch.randn(40, 5).double(), torch.linalg.qr(torch.randn(5, 5).double())
    torch.testing.assert_close(rotation_onto(points, points @ true), true)
    noisy = points @ true + torch.randn(40, 5)
    found = rotation_onto(points, noisy)
    torch.testing.assert_close(found @ found.T, torch.eye(5).double())
    off = float((points @ found - noisy).square().sum())
    others = (torch.linalg.qr(found + 0.2 * torch.randn(5, 5).double())[0] for _ in range(20))
    assert all(float((points @ other - noisy).square().sum()) >= off for other in others)


def test_points_that_are_not_paired_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points are \(3, 2\), the earlier ones \(4, 2\)"):
        rotation_onto(torch.zeros(3, 2), torch.zeros(4, 2))
