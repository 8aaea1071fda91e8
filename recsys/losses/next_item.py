"""Losses of what comes next: the states of sessions against the items of a batch.

Unlike in `recsys.losses.retrieval` a batch asks tens of thousands of questions, so their positives
need not all be candidates: candidates are shared and sampled, and every question has its own
positive in addition.

Shape letters: P questions, U items of the batch, C <= U candidates, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses.chunked import negative_logsumexp


def positive_logits(query_PW: Tensor, item_UW: Tensor, positive_P: Tensor) -> Tensor:
    """Return the score of each question's own item, (P,) float32."""
    return (query_PW.float() * item_UW.index_select(0, positive_P).float()).sum(1)


def full_softmax(query_PW: Tensor, item_UW: Tensor, positive_P: Tensor) -> Tensor:
    """Return -log softmax of each positive among all U items, (P,) float32, in nats.

    The logits are never all held at once (`recsys.losses.chunked`).
    """
    nothing = Jagged(positive_P[:0], positive_P.new_zeros(len(positive_P) + 1))
    denominator_P = negative_logsumexp(query_PW, item_UW, nothing)
    return denominator_P - positive_logits(query_PW, item_UW, positive_P)


def sampled_softmax(
    query_PW: Tensor, item_UW: Tensor, positive_P: Tensor, log_inclusion_C: Tensor
) -> Tensor:
    """Return -log softmax of each positive among its negatives, (P,) float32, in nats.

        log(1 + sum over candidates j but the positive of exp(s_j) / q_j / exp(s_positive))

    q_j is the probability that sampling draws candidate j, so the sum estimates that over the whole
    catalogue without bias (the logQ correction of Bengio and Senecal 2008).

    Args:
        query_PW: (P, W), any temperature applied.
        item_UW: (U, W), candidates first.
        positive_P: (P,) int64, below U.
        log_inclusion_C: (C,) float32, log q_j.
    """
    num_candidates = len(log_inclusion_C)
    is_candidate_P = positive_P < num_candidates
    own = Jagged(positive_P[is_candidate_P], F.pad(is_candidate_P.cumsum(0), (1, 0)))
    negatives_P = negative_logsumexp(query_PW, item_UW[:num_candidates], own, -log_inclusion_C)
    return F.softplus(negatives_P - positive_logits(query_PW, item_UW, positive_P))


def softmax_with_repeats(
    query_PW: Tensor,
    item_UW: Tensor,
    positive_P: Tensor,
    gain_P: Tensor,
    session_items: Jagged,
    log_inclusion_C: Tensor,
) -> Tensor:
    """Return -log softmax of each positive where items of a session score otherwise, (P,) float32.

    The items that a session holds are in the softmax with their scores plus the gain, each once
    and for sure; all others as in `sampled_softmax`.

    Args:
        query_PW: (P, W), any temperature applied.
        item_UW: (U, W), candidates first.
        positive_P: (P,) int64, below U.
        gain_P: (P,) float, what the session's items gain, any temperature applied.
        session_items: P rows of distinct places below U, the items of each session so far.
        log_inclusion_C: (C,) float32; zeros where the candidates are the whole catalogue.
    """
    device, num_questions = positive_P.device, len(positive_P)
    row_T = torch.repeat_interleave(
        torch.arange(num_questions, device=device),
        session_items.lengths(),
        output_size=len(session_items.values),
    )
    is_own_T = session_items.values == positive_P[row_T]
    repeated_P = torch.zeros_like(gain_P).index_add(0, row_T, is_own_T.to(gain_P.dtype))
    positive = positive_logits(query_PW, item_UW, positive_P) + gain_P * repeated_P

    excluded = _with_positives(session_items, row_T[is_own_T], positive_P, len(log_inclusion_C))
    others_P = negative_logsumexp(
        query_PW, item_UW[: len(log_inclusion_C)], excluded, -log_inclusion_C
    )
    row_T, place_T = row_T[~is_own_T], session_items.values[~is_own_T]
    logit_T = (query_PW[row_T].float() * item_UW[place_T].float()).sum(1) + gain_P[row_T]
    # exp(l) and the others: shifted by the larger of both, so that neither overflows.
    top_P = others_P.detach().scatter_reduce(0, row_T, logit_T.detach(), "amax")
    top_P = torch.where(top_P.isfinite(), top_P, 0.0)
    summed_P = torch.zeros_like(top_P).index_add(0, row_T, (logit_T - top_P[row_T]).exp())
    negatives_P = (summed_P + (others_P - top_P).exp()).log() + top_P
    return F.softplus(negatives_P - positive)


def _with_positives(
    session_items: Jagged, repeated: Tensor, positive_P: Tensor, num_candidates: int
) -> Jagged:
    """Return each question's own candidates: the session's items, and the positive, once.

    repeated: (R,) questions whose positive is in the session.
    """
    device = positive_P.device
    row = torch.repeat_interleave(
        torch.arange(len(positive_P), device=device),
        session_items.lengths(),
        output_size=len(session_items.values),
    )
    is_new = torch.ones(len(positive_P), dtype=torch.bool, device=device)
    is_new[repeated] = False
    new = is_new.nonzero().flatten()
    row, place = torch.cat([row, new]), torch.cat([session_items.values, positive_P[new]])
    order = row.argsort(stable=True)
    row, place = row[order], place[order]
    kept = place < num_candidates
    counts = torch.bincount(row[kept], minlength=len(positive_P))
    return Jagged(place[kept], F.pad(counts.cumsum(0), (1, 0)))


def generalised_bce(
    query_PW: Tensor,
    item_UW: Tensor,
    positive_P: Tensor,
    *,
    num_candidates: int,
    num_items: int,
    calibration: float,
) -> Tensor:
    """Return gBCE of each question, (P,) float32, in nats.

    Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained
    with Negative Sampling", RecSys 2023, section 5: binary cross-entropy overrates what it is
    shown, as it sees a share a = K / (num_items - 1) of the negatives alone. With s the logits,

        -(b log sigma(s_positive) + sum over K negatives of log sigma(-s_j)) / (K + 1),
        b = a (t (1 - 1 / a) + 1 / a)

    t = `calibration`: 0 is plain binary cross-entropy, 1 gives the softmax's probabilities. Unlike
    there, the negatives are shared by a batch; a question's own item is none of its negatives.
    Holds P x C logits.

    Args:
        query_PW: (P, W), any temperature applied.
        item_UW: (U, W), the first `num_candidates` of them drawn uniformly as negatives.
        positive_P: (P,) int64, below U.
        num_candidates: C.
        num_items: size of the catalogue.
        calibration: t, 0 to 1.
    """
    logits_PC = (query_PW @ item_UW[:num_candidates].T).float()
    own = (positive_P < num_candidates).nonzero().flatten()
    is_negative = torch.ones_like(logits_PC, dtype=torch.bool)
    is_negative[own, positive_P[own]] = False
    negatives_P = torch.where(is_negative, F.softplus(logits_PC), 0.0).sum(1)
    count_P = is_negative.sum(1)
    share_P = (count_P / max(num_items - 1, 1)).clamp(min=1e-12)
    power_P = share_P * (calibration * (1 - 1 / share_P) + 1 / share_P)
    positive = F.softplus(-positive_logits(query_PW, item_UW, positive_P))
    return (power_P * positive + negatives_P) / (count_P + 1)
