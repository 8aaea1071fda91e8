"""Pooling of a jagged history into a fixed number of vectors, weighted by recency.

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
        rates = torch.linspace(0.0, 1.0, num_heads)
        self.recency = nn.Parameter(-torch.arange(max_length).float().unsqueeze(1) * rates)

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
