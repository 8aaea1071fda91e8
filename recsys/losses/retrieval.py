"""Losses of retrieval: a query's own items against candidates that the queries of a batch share.

All losses see one thing: P pairs of a query and its positive item, and for each query the
candidates that are its negatives: all but `excluded`, which holds at least its own positives, so
that no positive is pushed away by another (false negatives). The candidates of a batch are
*distinct* items, so an accidental hit cannot occur.

Queries are (B, E), or (B, I, E) of several interests: an item's score s is then the best over
them, for positives and negatives, as at serving time (the softmax has their sum instead).
Cen et al., KDD 2020, section 3.3, hold all candidates against the interest nearest to the
positive: the others would not learn what they must not retrieve.

Shape letters: B queries, C candidates, P pairs, E width, I interests.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses.chunked import negative_logsumexp


@dataclass(frozen=True)
class Pairs:
    """P pairs: `asks` (P,) int64 rows of the queries, `positive` (P,) int64 columns.

    weight (P,) float32. total: what weighted sums are divided by, in place of the sum of the
    weights, where these pairs are a share of a larger batch.
    """

    asks: Tensor
    positive: Tensor
    weight: Tensor
    total: float | None = None

    def mean(self, losses_P: Tensor) -> Tensor:
        """Return the weighted mean of one loss a pair, a scalar."""
        total = self.weight.sum() if self.total is None else losses_P.new_tensor(self.total)
        return (losses_P * self.weight).sum() / total.clamp(min=1e-12)

    def logits(self, query_BE: Tensor, candidate_CE: Tensor) -> Tensor:
        """Return the score of each pair, (P,) float32."""
        if query_BE.ndim == 3:
            return self.each_logit(query_BE, candidate_CE).amax(1)
        query_PE = query_BE.index_select(0, self.asks)
        return (query_PE.float() * candidate_CE.index_select(0, self.positive).float()).sum(1)

    def each_logit(self, query_BIE: Tensor, candidate_CE: Tensor) -> Tensor:
        """Return the inner product of each pair with each interest, (P, I) float32."""
        query_PIE = query_BIE.index_select(0, self.asks).float()
        positive_PE = candidate_CE.index_select(0, self.positive).float()
        return torch.einsum("pie,pe->pi", query_PIE, positive_PE)


def softmax_loss(
    query_BE: Tensor,
    candidate_CE: Tensor,
    pairs: Pairs,
    excluded: Jagged,
    log_probability_C: Tensor | None = None,
) -> Tensor:
    """Return the mean of -log softmax of each pair among the query's negatives, in nats.

        log(1 + sum over negatives j of exp(s_j) / q_j / exp(s_positive))

    With q_j the probability that candidate j is in the batch at all, the sum is an unbiased
    estimate of that over the whole catalogue (Horvitz and Thompson 1952; the logQ correction of
    Bengio and Senecal 2008 and of Yi et al. 2019, section 4). The positive is there by choice and
    not by chance, so it keeps its logit. With the whole catalogue as candidates, and None for
    `log_probability_C`, this is the full softmax.

    Of several interests exp(s) is the sum of theirs, of which the best is the largest term: the
    softmax of a mixture, in which each learns from a positive by its share of that sum. With the
    best alone one interest soon wins every pair, and the others only learn what to avoid.

    Args:
        query_BE: (B, E) or (B, I, E) float, any temperature applied.
        candidate_CE: (C, E) float.
        pairs: the positives.
        excluded: B rows of the candidates that are no negatives.
        log_probability_C: (C,) float, log q_j.
    """
    bias_C = None if log_probability_C is None else -log_probability_C
    if query_BE.ndim == 3:
        row_R = torch.arange(query_BE.shape[0] * query_BE.shape[1], device=query_BE.device)
        own = excluded.take(row_R // query_BE.shape[1])
        each_R = negative_logsumexp(query_BE.flatten(0, 1), candidate_CE, own, bias_C)
        negatives_B = each_R.view(query_BE.shape[:2]).logsumexp(1)
        positive_P = pairs.each_logit(query_BE, candidate_CE).logsumexp(1)
    else:
        negatives_B = negative_logsumexp(query_BE, candidate_CE, excluded, bias_C)
        positive_P = pairs.logits(query_BE, candidate_CE)
    gap_P = negatives_B.index_select(0, pairs.asks) - positive_P
    return pairs.mean(F.softplus(gap_P))


@dataclass(frozen=True)
class Negatives:
    """How much each candidate counts as a negative of each query, rows summing to 1.

    share (B, C) float32: 0 where excluded; all zero where a query has no negative.
    """

    share: Tensor

    @classmethod
    def of(
        cls, excluded: Jagged, num_candidates: int, log_probability_C: Tensor | None = None
    ) -> "Negatives":
        """Return equal shares, or ones in proportion to 1 / q_j: a mean over the catalogue.

        With equal shares an item is pushed away as often as sampling draws it, which for items
        of the log is by their popularity.
        """
        lengths, device = excluded.lengths(), excluded.values.device
        row_T = torch.repeat_interleave(
            torch.arange(len(excluded), device=device), lengths, output_size=len(excluded.values)
        )
        weight_C = torch.ones(num_candidates, device=device)
        if log_probability_C is not None:
            weight_C = (log_probability_C.min() - log_probability_C).exp()
        share_BC = weight_C.repeat(len(excluded), 1)
        share_BC[row_T, excluded.values] = 0.0
        return cls(share_BC / share_BC.sum(1, keepdim=True).clamp(min=1e-12))

    def mean(self, losses_BC: Tensor) -> Tensor:
        """Return each query's mean over its negatives, (B,)."""
        return (losses_BC * self.share).sum(1)


def bce_loss(
    query_BE: Tensor,
    candidate_CE: Tensor,
    pairs: Pairs,
    negatives: Negatives,
    negative_weight: float = 1.0,
) -> Tensor:
    """Return the mean binary cross-entropy of each pair and of its negatives, in nats.

    -log sigmoid(s_positive) - negative_weight * mean over negatives of log sigmoid(-s)
    """
    against_B = negatives.mean(F.softplus(_scores(query_BE, candidate_CE)))
    positive_P = F.softplus(-pairs.logits(query_BE, candidate_CE))
    return pairs.mean(positive_P + negative_weight * against_B.index_select(0, pairs.asks))


def bpr_loss(query_BE: Tensor, candidate_CE: Tensor, pairs: Pairs, negatives: Negatives) -> Tensor:
    """Return Bayesian personalised ranking, in nats: negatives ranked below the positive.

        mean over negatives of -log sigmoid(s_positive - s)

    Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009,
    section 4, over all negatives of the batch in place of one drawn a pair.
    """
    gap_PC = _gaps(query_BE, candidate_CE, pairs)
    share_PC = negatives.share.index_select(0, pairs.asks)
    return pairs.mean((F.softplus(gap_PC) * share_PC).sum(1))


def cosine_contrastive_loss(
    query_BE: Tensor,
    candidate_CE: Tensor,
    pairs: Pairs,
    negatives: Negatives,
    *,
    margin: float,
    negative_weight: float,
) -> Tensor:
    """Return 1 - cos(positive) + negative_weight * mean over negatives of max(0, cos - margin).

    Mao et al., "SimpleX: A Simple and Strong Baseline for Collaborative Filtering", CIKM 2021,
    section 3.1: negatives below the margin are far enough away and drop out.
    """
    against_B = negatives.mean((_scores(query_BE, candidate_CE) - margin).clamp(min=0))
    positive_P = 1 - pairs.logits(query_BE, candidate_CE)
    return pairs.mean(positive_P + negative_weight * against_B.index_select(0, pairs.asks))


def metric_loss(
    query_BE: Tensor,
    candidate_CE: Tensor,
    pairs: Pairs,
    negatives: Negatives,
    *,
    margin: float,
    num_items: int,
    rank_weight: bool = True,
    worst: bool = True,
) -> Tensor:
    """Return the hinge of collaborative metric learning: own items near, others a margin off.

        w * mean (or max) over negatives of max(0, margin + d(q, positive)^2 - d(q, c)^2)
        w = log(rank + 1),  rank = num_items * (share of negatives inside the margin)

    Hsieh et al., "Collaborative Metric Learning", WWW 2017, sections 3.2 and 3.3: all negatives
    count, or the worst alone, and the more, the worse the item's rank is estimated to be (WARP).
    The paper draws few; the worst of a whole batch pulls all points together where little can be
    learnt of the interactions, since any spread makes the worst of many worse. Inner
    products s may replace distances since d(q, c)^2 - d(q, c')^2 = 2 (s' - s) on the sphere,
    and in the ball where s is -d^2 / 2.

    Args:
        query_BE: (B, E) or (B, I, E) float.
        candidate_CE: (C, E) float.
        pairs: the positives.
        negatives: what counts against them.
        margin: in squared distance.
        num_items: of the catalogue.
        rank_weight: False: w = 1.
        worst: max in place of the mean.
    """
    gap_PC = margin + 2 * _gaps(query_BE, candidate_CE, pairs)
    share_PC = negatives.share.index_select(0, pairs.asks)
    hinge_PC = gap_PC.masked_fill(share_PC == 0, 0.0).clamp(min=0)
    hinge_P = hinge_PC.amax(1) if worst else (hinge_PC * share_PC).sum(1)
    if rank_weight:
        inside_P = ((gap_PC > 0) * share_PC).sum(1)
        hinge_P = hinge_P * (inside_P * num_items).log1p()
    return pairs.mean(hinge_P)


def covariance_loss(vectors_NE: Tensor) -> Tensor:
    """Return how much the coordinates of vectors are correlated, a scalar.

        (|C|_F^2 - |diag C|^2) / N,  C the covariance over the N vectors

    Hsieh et al. 2017, section 3.4, after Cogswell et al. 2016: no direction of the space is to
    repeat another.
    """
    centred = vectors_NE - vectors_NE.mean(0)
    covariance_EE = centred.T @ centred / len(vectors_NE)
    return (covariance_EE.square().sum() - covariance_EE.diagonal().square().sum()) / len(
        vectors_NE
    )


def _gaps(query_BE: Tensor, candidate_CE: Tensor, pairs: Pairs) -> Tensor:
    """Return the score of every candidate less that of the pair's positive, (P, C)."""
    scores_BC = _scores(query_BE, candidate_CE)
    positive_P = pairs.logits(query_BE, candidate_CE)
    return scores_BC.index_select(0, pairs.asks) - positive_P.unsqueeze(1)


def _scores(query_BE: Tensor, candidate_CE: Tensor) -> Tensor:
    """Return the score of every candidate, (B, C) float32."""
    if query_BE.ndim == 2:
        return (query_BE @ candidate_CE.T).float()
    each_RC = (query_BE.flatten(0, 1) @ candidate_CE.T).float()
    return each_RC.view(*query_BE.shape[:2], -1).amax(1)
