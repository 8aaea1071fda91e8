"""What shall keep vectors in their place: targets by hand."""

import torch
from loss_methods.compatible import clusters, random_targets, simplex


def test_vertices_of_a_simplex_are_of_unit_length_and_equally_far() -> None:
    vertices = simplex(4)
    products = vertices @ vertices.T
    torch.testing.assert_close(products, 1.25 * torch.eye(5) - 0.25, atol=1e-6, rtol=0)


def test_the_target_of_an_item_does_not_depend_on_the_others() -> None:
    targets = random_targets([3, 8, 5], 16)
    torch.testing.assert_close(targets[1:], random_targets([8, 5], 16))
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(3))


def test_items_of_one_direction_are_one_cluster() -> None:
    turn = torch.tensor([[1.0, 0.0], [0.99, 0.14], [0.0, 1.0], [0.14, 0.99]])
    own = clusters(turn, 2).tolist()
    assert own[0] == own[1]
    assert own[2] == own[3]
    assert own[0] != own[2]
