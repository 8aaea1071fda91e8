"""Sampled softmax against the full one on a small catalogue: its gradient, and where it ends."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.batches.sampling import log_inclusion
from recsys.losses.retrieval import Pairs, softmax_loss

ITEMS, UNIFORM, BATCH = 40, 6, 16
LOG = np.random.default_rng(7).permutation(
    np.repeat(np.arange(ITEMS), np.maximum(1, 600 // (1 + np.arange(ITEMS)) ** 1.2).astype(int))
)
COUNTS = np.bincount(LOG, minlength=ITEMS)


def sampled_loss(
    query_BE: Tensor,
    item_NE: Tensor,
    taken_B: np.ndarray,
    rng: np.random.Generator,
    *,
    corrected: bool,
) -> Tensor:
    """Return the loss of a batch as the loader draws it."""
    drawn = np.concatenate([taken_B, rng.integers(0, ITEMS, UNIFORM)])
    candidates, place = np.unique(drawn, return_inverse=True)
    positive = torch.from_numpy(place[: len(taken_B)])
    log_q = log_inclusion(COUNTS, batch_size=len(taken_B), uniform_negatives=UNIFORM)
    asks = torch.arange(len(taken_B))
    return softmax_loss(
        query_BE,
        item_NE[torch.from_numpy(candidates)],
        Pairs(asks, positive, torch.ones(len(taken_B))),
        Jagged(positive, torch.arange(len(taken_B) + 1)),
        torch.from_numpy(log_q[candidates]) if corrected else None,
    )


def full_loss(query_BE: Tensor, item_NE: Tensor, taken_B: np.ndarray) -> Tensor:
    logits = query_BE @ item_NE.T
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(taken_B))


def test_the_corrected_gradient_is_that_of_the_full_softmax_and_the_plain_one_is_not() -> None:
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    # Popularity is known already, and the query of a row tells something of what is taken.
    own_NE = torch.randn(ITEMS, 4, generator=generator)
    popularity_N1 = torch.from_numpy(COUNTS / COUNTS.sum()).float().log().unsqueeze(1)
    item_NE = torch.cat([own_NE, popularity_N1], dim=1)
    noise_LE = torch.randn(len(LOG), 4, generator=generator)
    query_LE = 0.3 * item_NE[torch.from_numpy(LOG)]
    query_LE[:, :4] += 0.3 * noise_LE
    query_LE[:, 4] = 1.0
    leaf = item_NE.clone().requires_grad_()
    (full,) = torch.autograd.grad(full_loss(query_LE, leaf, LOG), leaf)
    errors = {}
    for corrected in (True, False):
        total = torch.zeros_like(full)
        for _ in range(800):
            rows = rng.choice(len(LOG), BATCH, replace=False)
            loss = sampled_loss(query_LE[rows], leaf, LOG[rows], rng, corrected=corrected)
            total += torch.autograd.grad(loss, leaf)[0]
        errors[corrected] = float((total / 800 - full).norm() / full.norm())
    assert errors[True] < 0.3
    assert errors[False] > 5 * errors[True]


@pytest.mark.parametrize("corrected", [True, False])
def test_only_with_the_correction_the_softmax_learns_how_often_each_item_is_taken(
    corrected: bool,
) -> None:
    rng = np.random.default_rng(1)
    item_N1 = torch.zeros(ITEMS, 1, requires_grad=True)
    optimizer = torch.optim.Adam([item_N1], lr=0.1)
    mean, steps = torch.zeros(ITEMS), 500
    for step in range(steps):
        taken = LOG[rng.choice(len(LOG), BATCH, replace=False)]
        optimizer.zero_grad()
        sampled_loss(torch.ones(BATCH, 1), item_N1, taken, rng, corrected=corrected).backward()
        optimizer.step()
        if step >= steps // 2:
            mean += item_N1.detach()[:, 0] / (steps - steps // 2)
    truth = torch.from_numpy(COUNTS / COUNTS.sum()).float()
    divergence = float((truth * (truth.log() - mean.log_softmax(0))).sum())
    if corrected:
        assert divergence < 0.02
    else:
        assert divergence > 0.1
