"""Pooling of a jagged history into a fixed number of vectors, by recency or by likeness.

Shape letters: B queries, T events in all, U vectors that events point at, E width, H heads,
L longest history.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import Jagged


class RecencyPooling(nn.Module):
    """H weighted means of the last L events; each head learns how fast it forgets.

    Head h gives the event r steps back the weight softmax_r(w[r, h]). Heads start as
    geometric forgetting at different rates, from the whole history to the last event.
    """

    def __init__(self, num_heads: int, max_length: int) -> None:
        super().__init__()
        self.recency = nn.Parameter(_forgetting(num_heads, max_length))

    @property
    def num_heads(self) -> int:
        """H."""
        return self.recency.shape[1]

    def forward(self, vectors_UE: Tensor, history: Jagged) -> Tensor:
        """Return (B, H, E); zeros for a query without history.

        history: B rows of positions into `vectors_UE`, oldest first, none longer than L.
        """
        # A history of n events has the steps 0..n-1, so its normaliser is a prefix's.
        normaliser_LH = torch.logcumsumexp(self.recency, dim=0)
        pooled_BHE: Tensor = _WeightedBags.apply(  # type: ignore[no-untyped-call]
            vectors_UE.contiguous(), self.recency, normaliser_LH, history.values, history.offsets
        )
        return pooled_BHE


class _WeightedBags(torch.autograd.Function):
    """Sums of a history's vectors with the weight exp(recency[r] - normaliser[n - 1]).

    The gradient of the vectors is one sum over the events that point at each, all heads at once,
    in an order that does not depend on the threads.
    """

    @staticmethod
    def forward(
        ctx: Any,
        vectors_UE: Tensor,
        recency_LH: Tensor,
        normaliser_LH: Tensor,
        values_T: Tensor,
        offsets: Tensor,
    ) -> Any:
        lengths_B, num_events, device = offsets.diff(), len(values_T), values_T.device
        row_T = torch.repeat_interleave(
            torch.arange(len(lengths_B), device=device), lengths_B, output_size=num_events
        )
        back_T = offsets[1:].index_select(0, row_T) - 1 - torch.arange(num_events, device=device)
        last_B = (lengths_B - 1).clamp(min=0)
        log_HB = normaliser_LH.T.index_select(1, last_B)
        log_HT = recency_LH.T.index_select(1, back_T) - log_HB.index_select(1, row_T)
        weight_HT = log_HT.exp_()
        pooled_BHE = torch.stack(
            [_bags(vectors_UE, values_T, offsets, weight_T) for weight_T in weight_HT], dim=1
        )
        ctx.save_for_backward(
            vectors_UE, values_T, offsets, row_T, back_T, last_B, weight_HT, pooled_BHE
        )
        ctx.num_steps = len(recency_LH)
        return pooled_BHE

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        vectors_UE, values_T, offsets, row_T, back_T, last_B, weight_HT, pooled_BHE = (
            ctx.saved_tensors
        )
        grad_BHE, num_heads = grads[0].contiguous(), len(weight_HT)
        order_T = values_T.argsort(stable=True)
        ends = torch.zeros(len(vectors_UE) + 1, dtype=torch.int64, device=values_T.device)
        torch.cumsum(torch.bincount(values_T, minlength=len(vectors_UE)), 0, out=ends[1:])
        first_T = row_T.index_select(0, order_T) * num_heads
        grad_row_TH = first_T.unsqueeze(1) + torch.arange(num_heads, device=values_T.device)
        weight_TH = weight_HT.T.contiguous().index_select(0, order_T)
        of_vectors_UE = _bags(
            grad_BHE.flatten(0, 1), grad_row_TH.flatten(), ends * num_heads, weight_TH.flatten()
        )
        products_HT = torch.stack(
            [
                _products(grad_BE.contiguous(), vectors_UE, values_T, offsets, row_T)
                for grad_BE in grad_BHE.unbind(1)
            ]
        )
        of_recency_LH = _sums(back_T, products_HT * weight_HT, ctx.num_steps)
        of_normaliser_LH = _sums(last_B, -(pooled_BHE * grad_BHE).sum(2).T, ctx.num_steps)
        return of_vectors_UE, of_recency_LH, of_normaliser_LH, None, None


def _bags(rows: Tensor, values_T: Tensor, offsets: Tensor, weight_T: Tensor) -> Tensor:
    """Return the weighted sum of the rows that each bag of values names."""
    return F.embedding_bag(
        values_T,
        rows,
        offsets,
        mode="sum",
        per_sample_weights=weight_T,
        include_last_offset=True,
    )


def _products(
    grad_BE: Tensor, vectors_UE: Tensor, values_T: Tensor, offsets: Tensor, row_T: Tensor
) -> Tensor:
    """Return <grad of the event's row, vector of the event>, (T,), without a copy of either."""
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad_BE, vectors_UE, values_T, offsets, row_T, 0
    )
    return products


def _sums(place_N: Tensor, numbers_HN: Tensor, size: int) -> Tensor:
    """Return (size, H): the sum of the numbers of each place."""
    sums = [torch.bincount(place_N, weights=one_N, minlength=size) for one_N in numbers_HN]
    return torch.stack(sums, dim=1).to(numbers_HN.dtype)


class InterestPooling(nn.Module):
    """I weighted means of the last L events, each by what it attends to.

    ComiRec-SA: Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020,
    section 3.2. Interest i gives the event v r steps back the weight softmax over the
    history of

        w_i . tanh(A v sqrt(E)) + recency[r, i]

    Vectors have a length of about 1, so the root makes their coordinates that large: without it
    all interests start as the same mean. Where the paper adds embeddings of positions to v, here
    each interest forgets at a rate of its own, which starts as that of a head of
    `RecencyPooling`: interests differ from the first step on.
    """

    def __init__(self, num_interests: int, dim: int, max_length: int) -> None:
        super().__init__()
        self.recency = nn.Parameter(_forgetting(num_interests, max_length))
        self.hidden = nn.Linear(dim, 4 * dim, bias=False)
        self.attention = nn.Linear(4 * dim, num_interests, bias=False)

    def forward(self, vectors_UE: Tensor, history: Jagged) -> Tensor:
        """Return (B, I, E); zeros for a query without history.

        history: B rows of positions into `vectors_UE`, oldest first, none longer than L.
        """
        scale = vectors_UE.shape[1] ** 0.5
        scores_UI = self.attention(torch.tanh(self.hidden(vectors_UE * scale))).float()
        lengths_B, num_events = history.lengths(), len(history.values)
        row_T = torch.repeat_interleave(
            torch.arange(len(history), device=vectors_UE.device), lengths_B, output_size=num_events
        )
        end_T = history.offsets[1:].index_select(0, row_T)
        back_T = end_T - 1 - torch.arange(num_events, device=end_T.device)
        score_TI = F.embedding(history.values, scores_UI) + F.embedding(back_T, self.recency)
        index_TI = row_T.unsqueeze(1).expand_as(score_TI)
        lowest_BI = score_TI.new_full((len(history), score_TI.shape[1]), -torch.inf)
        top_BI = lowest_BI.scatter_reduce(0, index_TI, score_TI.detach(), "amax")
        share_TI = (score_TI - top_BI.index_select(0, row_T)).exp()
        total_BI = torch.zeros_like(top_BI).index_add(0, row_T, share_TI)
        share_TI = share_TI / total_BI.index_select(0, row_T)
        heads = [
            F.embedding_bag(
                history.values,
                vectors_UE,
                history.offsets,
                mode="sum",
                per_sample_weights=share_T,
                include_last_offset=True,
            )
            for share_T in share_TI.T.contiguous()
        ]
        return torch.stack(heads, dim=1)


def _forgetting(num_rates: int, max_length: int) -> Tensor:
    """Return logits (L, rates): geometric forgetting, from none at all to mostly the last event."""
    return -torch.arange(max_length).float().unsqueeze(1) * torch.linspace(0.0, 1.0, num_rates)


def attended(query_BE: Tensor, vectors_TE: Tensor, history: Jagged) -> Tensor:
    """Return the mean of each history's vectors by how much they are like its query, (B, E).

    With w_t the weight of event t (1 without weights), sums over the events of query b:

        sum_t a_t v_t,   a_t = w_t exp(s_t) / sum_u w_u exp(s_u),   s_t = <q_b, v_t> / sqrt(E)

    Scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation
    1) of one query over its own history; zeros where that is empty or weighs nothing. It has no
    parameter; `ActivationPooling` has.

    history: B rows, whose T values themselves are not looked at.
    """
    num_rows, lengths_B = len(history), history.lengths()
    row_T = torch.repeat_interleave(
        torch.arange(num_rows, device=vectors_TE.device), lengths_B, output_size=len(vectors_TE)
    )
    scale = query_BE.shape[1] ** -0.5
    score_T = (query_BE.index_select(0, row_T) * vectors_TE).sum(1) * scale
    # Shifting by the largest score changes nothing but keeps exp finite.
    lowest_B = score_T.new_full((num_rows,), -torch.inf)
    top_B = lowest_B.scatter_reduce(0, row_T, score_T.detach(), "amax")
    share_T = (score_T - top_B[row_T]).exp()
    if history.weights is not None:
        share_T = share_T * history.weights
    total_B = score_T.new_zeros(num_rows).index_add(0, row_T, share_T)
    share_T = share_T / total_B.clamp(min=torch.finfo(total_B.dtype).tiny).index_select(0, row_T)
    summed_BE = vectors_TE.new_zeros(num_rows, vectors_TE.shape[1])
    return summed_BE.index_add(0, row_T, share_T.unsqueeze(1) * vectors_TE)


class ActivationPooling(nn.Module):
    """The sum of each history's vectors by what a perceptron makes of each and its query.

    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
    https://arxiv.org/abs/1706.06978, equation 3: with w_t the weight of event t (1 without
    weights), sums over the events of query b:

        sum_t w_t a(q_b, v_t) v_t,   a(q, v) = unit([q, v, q - v, q * v])

    The shares a do not sum to 1, so that the length says how strong the interest is. The unit has
    one hidden layer of PReLU, which the paper's Dice has as a special case; a batch of events is no
    batch of rows, over which Dice would normalise. It sees q and v normalised each by itself, as
    the table's L2 makes the scale of both small; the sum is of the vectors as they are.
    """

    def __init__(self, width: int, hidden: int = 36) -> None:
        super().__init__()
        self.unit = nn.Sequential(nn.Linear(4 * width, hidden), nn.PReLU(), nn.Linear(hidden, 1))

    def forward(self, query_BE: Tensor, vectors_TE: Tensor, history: Jagged) -> Tensor:
        """Return (B, E); zeros for an empty history.

        history: B rows, whose T values themselves are not looked at.
        """
        row_T = torch.repeat_interleave(
            torch.arange(len(history), device=vectors_TE.device),
            history.lengths(),
            output_size=len(vectors_TE),
        )
        share_T = self.shares(query_BE.index_select(0, row_T), vectors_TE)
        if history.weights is not None:
            share_T = share_T * history.weights
        summed_BE = vectors_TE.new_zeros(len(history), vectors_TE.shape[1])
        return summed_BE.index_add(0, row_T, share_T.unsqueeze(1) * vectors_TE)

    def shares(self, query: Tensor, vectors: Tensor) -> Tensor:
        """Return a(q, v) of queries and vectors of the same shape (..., E)."""
        q, v = (F.layer_norm(one, one.shape[-1:], eps=1e-8) for one in (query, vectors))
        found: Tensor = self.unit(torch.cat([q, v, q - v, q * v], dim=-1)).squeeze(-1)
        return found.to(vectors.dtype)
