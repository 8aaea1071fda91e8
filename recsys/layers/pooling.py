"""Pooling of a jagged history into a fixed number of vectors, by recency or by likeness.

Shape letters: B queries, T events in all, U vectors that events point at, E width, H heads,
L longest history.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.batch import Jagged


class RecencyPooling(nn.Module):
    """H weighted means of the last L events; each head learns how fast it forgets.

    Head h gives the event that lies r steps back the weight softmax_r(w[r, h]). Heads start as
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
        lengths_B = history.lengths()
        length_T = torch.repeat_interleave(lengths_B, lengths_B, output_size=len(history.values))
        end_T = torch.repeat_interleave(
            history.offsets[1:], lengths_B, output_size=len(history.values)
        )
        back_T = end_T - 1 - torch.arange(len(end_T), device=end_T.device)
        # A history of n events has the steps 0..n-1, so its normaliser is a prefix's.
        normaliser_LH = torch.logcumsumexp(self.recency, dim=0)
        # Plain indexing would add its gradients up in an order that depends on the threads.
        weight_TH = F.embedding(back_T, self.recency) - F.embedding(length_T - 1, normaliser_LH)
        heads = [
            F.embedding_bag(
                history.values,
                vectors_UE,
                history.offsets,
                mode="sum",
                per_sample_weights=weights_T,
                include_last_offset=True,
            )
            for weights_T in weight_TH.exp().T.contiguous()
        ]
        return torch.stack(heads, dim=1)


class InterestPooling(nn.Module):
    """I weighted means of the last L events, each by what it attends to.

    ComiRec-SA: Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020,
    section 3.2. Interest i gives the event v that lies r steps back the weight softmax over the
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
    1) of one query over its own history; zeros where that is empty or weighs nothing. Deep
    Interest Network (https://arxiv.org/abs/1706.06978, section 4.3) has a learnt activation in
    place of the product and does not normalise; this has no parameter.

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
