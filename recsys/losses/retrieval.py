"""Sampled softmax for retrieval, its correction as a separate small step.

The candidates of a batch are *distinct* items, so a query's positive never stands in a second
column: accidental hits, which in-batch softmax has to mask, cannot occur.

Shape letters: B queries, C candidates that the queries of a batch share.
"""

from torch import Tensor
from torch.nn import functional as F


def correct_log_odds(logits_BC: Tensor, log_probability_C: Tensor, positive_B: Tensor) -> Tensor:
    """Undo the sampling of candidates: logits - log q for every candidate but the positive.

    With q_j the probability that candidate j is in the batch at all,
        exp(s_pos) + sum over sampled j != pos of exp(s_j) / q_j
    is an unbiased estimate of the full softmax's denominator (Horvitz and Thompson 1952; the
    logQ correction of Bengio and Senecal 2008 and of Yi et al. 2019, section 4). The positive
    is there by choice and not by chance, so it keeps its logit.

    Args:
        logits_BC: (B, C) float, any temperature applied.
        log_probability_C: (C,) float, log q_j.
        positive_B: (B,) int64, the column of each query's positive.
    """
    correction_BC = log_probability_C.expand_as(logits_BC)
    kept = correction_BC.scatter(1, positive_B.unsqueeze(1), 0.0)
    return logits_BC - kept


def softmax_loss(
    logits_BC: Tensor, positive_B: Tensor, weight_B: Tensor, total_weight: float | None = None
) -> Tensor:
    """Return the weighted mean of -log softmax(logits)[positive], a scalar in nats.

    loss = sum_b w_b * (logsumexp_c s_bc - s_b,pos(b)) / sum_b w_b

    `total_weight` divides in place of the sum, where these rows are a share of a larger batch.
    """
    losses_B = F.cross_entropy(logits_BC, positive_B, reduction="none")
    total = weight_B.sum() if total_weight is None else losses_B.new_tensor(total_weight)
    return (losses_B * weight_B).sum() / total.clamp(min=1e-12)
