"""Maps of attention: means over rows, and the rollout by hand."""

import numpy as np
import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock
from recsys.explanation.attention_maps import attention_maps

NAMES = ("a", "b")
TURNED = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
LEFT = torch.tensor([[1.0, 0.0], [1.0, 0.0]])


def rows(*which: int) -> FeatureBlock:
    count = len(which)
    return FeatureBlock(torch.tensor(which).view(count, 1), (), torch.zeros(count, 0))


def attention(block: FeatureBlock) -> Tensor:
    """Two layers of two heads: rows of kind 1 look to the other side, then all to the left."""
    first = torch.stack([TURNED if kind else torch.eye(2) for kind in block.single[:, 0]])
    layer = first[:, None].expand(-1, 2, -1, -1)
    return torch.stack([layer, LEFT.expand_as(layer)])


def test_of_one_row_it_is_that_rows_own() -> None:
    found = attention_maps(attention, NAMES, rows(1))
    assert found.heads.shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(found.heads[0, 1], TURNED)
    np.testing.assert_array_equal(found.average, [[0.5, 0.5], [1, 0]])
    np.testing.assert_array_equal(found.received, [0.75, 0.25])
    assert found.between("a", "b") == found.between("b", "a") == 0.75
    # (LEFT + I) / 2 times (TURNED + I) / 2.
    np.testing.assert_array_equal(found.rollout, [[0.5, 0.5], [0.5, 0.5]])


def test_of_several_rows_it_is_the_mean_and_the_rollout_is_rolled_row_by_row() -> None:
    which = np.random.default_rng(0).integers(0, 2, 5000)
    which[:2] = 0, 1
    found = attention_maps(attention, NAMES, rows(*which))
    share = which.mean()
    np.testing.assert_allclose(found.heads[0, 0], [[1 - share, share], [share, 1 - share]])
    straight = np.array([[1, 0], [0.5, 0.5]])  # (LEFT + I) / 2 times I
    np.testing.assert_allclose(found.rollout, (1 - share) * straight + share * np.full((2, 2), 0.5))
    np.testing.assert_allclose(found.rollout.sum(1), 1)
    assert found.names == NAMES
