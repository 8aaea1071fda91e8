"""Losses of representations without labels: agree with your other view, differ from others.

Shape letters: N rows, E width of a representation.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    first_NE: Tensor, second_NE: Tensor, temperature: float, ids_N: Tensor | None = None
) -> Tensor:
    """Return the softmax loss of telling each row's second view among those of all, in nats.

        mean_n -log( exp(s_nn / t) / sum_m exp(s_nm / t) ),  s_nm = cos(first_n, second_m)

    Yao et al., CIKM 2021, https://arxiv.org/abs/2007.12865, section 3.1. In one direction, as
    there: the first views ask. The sum leaves out rows m other than n that are the same thing.

    Args:
        first_NE: (N, E) float, of any lengths but 0.
        second_NE: (N, E) float, row n another view of what row n of `first_NE` is.
        temperature: t.
        ids_N: (N,) int64, rows of one id are the same thing; None: all differ.
    """
    logits_NN = F.normalize(first_NE, dim=1) @ F.normalize(second_NE, dim=1).T / temperature
    own_N = torch.arange(len(logits_NN), device=logits_NN.device)
    if ids_N is not None:
        logits_NN = logits_NN.masked_fill(_same_thing(ids_N), -torch.inf)
    return F.cross_entropy(logits_NN, own_N)


def spread_out_loss(rows_NE: Tensor, ids_N: Tensor | None = None) -> Tensor:
    """Return how far pairs of unlike rows are from spread evenly over the sphere, a scalar.

        M1^2 + max(0, M2 - 1 / E),  M1, M2: the mean and the mean square of cos(row_n, row_m)

    Zhang et al., "Learning Spread-out Local Feature Descriptors", ICCV 2017,
    https://arxiv.org/abs/1708.06320: of two directions drawn evenly the cosine has mean 0 and
    mean square 1 / E. 0 where there is no pair.

    Args:
        rows_NE: (N, E) float, of any lengths but 0.
        ids_N: (N,) int64, rows of one id make no pair; None: all differ.
    """
    count, width = rows_NE.shape
    unit_NE = F.normalize(rows_NE, dim=1)
    pair_NN = ~torch.eye(count, dtype=torch.bool, device=rows_NE.device)
    if ids_N is not None:
        pair_NN &= ~_same_thing(ids_N)
    # Products and a count in place of a selection: no wait for a device.
    cosine_NN = (unit_NE @ unit_NE.T) * pair_NN
    pairs = pair_NN.sum().clamp(min=1)
    first, second = cosine_NN.sum() / pairs, cosine_NN.square().sum() / pairs
    return first.square() + (second - 1 / width).clamp(min=0)


def _same_thing(ids_N: Tensor) -> Tensor:
    """Return (N, N) bool: other rows of one's own id."""
    return (ids_N.unsqueeze(1) == ids_N).fill_diagonal_(False)
