"""Smoothing over who took what, against matrices written out."""

import numpy as np
import pytest
import torch

from recsys.data.batch import FeatureBlock
from recsys.layers.smoothing import ItemSmoothing

USER = np.array([0, 0, 1, 1, 2, 0])
ITEM = np.array([0, 1, 1, 2, 2, 0])  # user 0 took item 0 twice: one pair; item 3 nobody


def nobody(count: int) -> FeatureBlock:
    return FeatureBlock(torch.zeros(count, 0, dtype=torch.int64), (), torch.zeros(count, 0))


def by_hand(items: torch.Tensor, users: torch.Tensor, rounds: int, weight: float) -> torch.Tensor:
    taken = torch.zeros(4, 4)
    taken[torch.from_numpy(USER), torch.from_numpy(ITEM)] = 1.0
    share = taken / (taken.sum(1, keepdim=True).clamp(min=1) * taken.sum(0).clamp(min=1)).sqrt()
    found = items
    for _ in range(rounds):
        found = items + weight * share.T @ (users + share @ found)
    return found


@pytest.mark.parametrize("rounds", [1, 2])
def test_smoothing_and_its_gradients_by_hand(rounds: int) -> None:
    smoothing = ItemSmoothing(USER, ITEM, nobody(4), 4, rounds=rounds, weight=0.7)
    results = []
    for found_by in (smoothing, lambda i, u: by_hand(i, u, rounds, 0.7)):
        torch.manual_seed(1)
        items = torch.randn(4, 3, requires_grad=True)
        users = torch.randn(4, 3, requires_grad=True)
        found = found_by(items, users)
        (found * torch.arange(12.0).view(4, 3)).sum().backward()
        results.append((found.detach(), items.grad, users.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_an_item_that_nobody_took_stays_as_it_is_and_nothing_is_saved() -> None:
    smoothing = ItemSmoothing(USER, ITEM, nobody(4), 4, rounds=2, weight=1.0)
    items = torch.randn(4, 3)
    found = smoothing(items, torch.randn(4, 3))
    assert torch.equal(found[3], items[3])
    assert not torch.equal(found[0], items[0])
    assert smoothing.state_dict() == {}


def test_smoothing_runs_in_single_precision_under_autocast() -> None:
    smoothing = ItemSmoothing(USER, ITEM, nobody(4), 4, rounds=1, weight=1.0)
    items, users = torch.randn(4, 3), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(smoothing(items, users), smoothing(items, users).float())
    assert torch.equal(smoothing(items, users), smoothing(items, users))
