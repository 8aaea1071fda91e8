"""The softmax over a batch with continuous weights: items like the positive are positive in part.

Srinivasa et al., "CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss", NeurIPS
2023, https://arxiv.org/abs/2309.14580, equation 3. Of a query's positive i and its candidates j

    -sum_j w_ij log softmax_j / sum_j w_ij,  w_ii = 1

where w_ij, in [0, 1], is a similarity of the items that is known before training: the paper's is
that of a pretrained model of one modality. Here it is a cosine of what is known of the items, to
a power. The softmax corrects for sampling as `recsys.losses.retrieval.softmax_loss` does.

Shape letters: N items, P pairs, B queries, C candidates, E width, F attributes or users.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.losses.retrieval import Pairs


def cosines(members_NF: sparse.csr_matrix, weight_F: NDArray[np.float32], power: float) -> Tensor:
    """Return the cosines of rows of at least 0, to a power, (N, N) float16, 1 with themselves."""
    weighted = sparse.csr_matrix(members_NF.multiply(weight_F))
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    unit = sparse.diags(1 / np.maximum(length, 1e-12)) @ weighted
    found = torch.empty(unit.shape[0], unit.shape[0], dtype=torch.float16)
    for first in range(0, unit.shape[0], 1024):
        part = (unit[first : first + 1024] @ unit.T).toarray()
        found[first : first + 1024] = (
            torch.from_numpy(part.astype(np.float32)).clamp(max=1) ** power
        )
    return found.fill_diagonal_(1.0)


def incidence(rows: Jagged) -> sparse.csr_matrix:
    """Return which row has which value, (N, distinct values) of 0 and 1."""
    known, code = np.unique(rows.values.numpy(), return_inverse=True)
    ones = np.ones(len(code), np.float32)
    return sparse.csr_matrix((ones, code, rows.offsets.numpy()), (len(rows), len(known)))


def weighted_softmax_loss(
    query_BE: Tensor,
    candidate_CE: Tensor,
    pairs: Pairs,
    excluded: Jagged,
    weight_PC: Tensor,
    log_probability_C: Tensor | None = None,
) -> Tensor:
    """Return the mean over the pairs of the weighted cross-entropy, in nats.

    Args:
        query_BE: (B, E) float, the temperature applied.
        candidate_CE: (C, E) float.
        pairs: the positives.
        excluded: B rows of candidates that neither pull nor push.
        weight_PC: (P, C) float, w; what it says of excluded candidates and of a pair's own
            positive, which has 1, is not read.
        log_probability_C: (C,) float, log of the probability of each candidate to be drawn.
    """
    logits_BC = (query_BE @ candidate_CE.T).float()
    own_P, pair_P = pairs.positive, torch.arange(len(pairs.asks))
    row_T = torch.repeat_interleave(torch.arange(len(excluded)), excluded.lengths())
    out_BC = torch.zeros_like(logits_BC, dtype=torch.bool)
    out_BC[row_T, excluded.values] = True
    out_PC = out_BC[pairs.asks].index_put((pair_P, own_P), torch.tensor(False))
    score_PC = logits_BC[pairs.asks]
    drawn_PC = score_PC if log_probability_C is None else score_PC - log_probability_C
    drawn_PC = drawn_PC.index_put((pair_P, own_P), score_PC[pair_P, own_P])
    total_P = drawn_PC.masked_fill(out_PC, -torch.inf).logsumexp(1)
    target_PC = weight_PC.index_put((pair_P, own_P), weight_PC.new_tensor(1.0))
    target_PC = target_PC.masked_fill(out_PC, 0.0)
    target_PC = target_PC / target_PC.sum(1, keepdim=True)
    return pairs.mean(total_P - (target_PC * score_PC).sum(1))
