"""Search by the scores of a ranker that reads both sides at once, from a few of its scores.

Yadav et al., "Efficient Nearest Neighbor Search for Cross-Encoder Models using Matrix
Factorization", EMNLP 2022, https://arxiv.org/abs/2210.12579, section 2 (ANNCUR). A ranker's scores
of some users and all items, R (U, N), are computed once. Another user is scored with A anchor items
only, c (A,); all its scores are then taken for

    c pinv(R[:, anchors]) R,

a CUR decomposition of the matrix of all scores, exact where its rank is no larger than that of
R[:, anchors]. The right part is a vector an item, so any index searches it, asked with c.

Shape letters: U users of the matrix, N items, A anchor items, B other users.

Example:
    anchors = anchor_items(scores_UN, 100)
    vectors_NA = cur_vectors(scores_UN, anchors)
    guessed, rows = exact_topk(scores_BN[:, anchors], vectors_NA, 100)   # rank these 100 in full
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SAME = 1e-6
"""Of the largest singular value: what is below it is rounding of float32 scores."""


def anchor_items(scores_UN: Tensor, num: int) -> Tensor:
    """Return (A,) int64 item rows that tell all others' scores well, best first.

    Each next item is that whose scores the ones before explain least: QR with pivots. The paper
    draws them at random. Fewer than `num` where the matrix has a lower rank.

    Raises:
        ValueError: `num` below 1 or above min(U, N).
    """
    most = min(scores_UN.shape)
    if not 1 <= num <= most:
        raise ValueError(f"from 1 to {most} anchor items of {tuple(scores_UN.shape)}, got {num}")
    left: NDArray[np.float64] = scores_UN.double().numpy().copy()
    lengths = np.square(left).sum(0)
    least = _SAME**2 * lengths.max()
    chosen: list[int] = []
    while len(chosen) < num and lengths.max() > least:
        best = int(lengths.argmax())
        chosen.append(best)
        direction = left[:, best] / np.linalg.norm(left[:, best])
        left -= np.outer(direction, direction @ left)
        lengths = np.square(left).sum(0)
        lengths[chosen] = -1.0
    return torch.tensor(chosen)


def cur_vectors(scores_UN: Tensor, anchors_A: Tensor, *, smallest: float = _SAME) -> Tensor:
    """Return the vectors (N, A) float32 of items, to be asked with a user's scores of the anchors.

    Args:
        scores_UN: of the ranker, for users of the log and all items; logits, not probabilities.
        anchors_A: item rows.
        smallest: singular values of the anchors' scores below this share of the largest one count
            as zero; more is steadier where scores are noisy.

    Raises:
        ValueError: no anchors, or one that is no item.
    """
    if not len(anchors_A) or int(anchors_A.min()) < 0 or int(anchors_A.max()) >= scores_UN.shape[1]:
        raise ValueError(
            f"anchors are rows of {scores_UN.shape[1]} items, got {anchors_A.tolist()}"
        )
    scores = scores_UN.double()
    inverse = torch.linalg.pinv(scores[:, anchors_A], rtol=smallest)
    return (inverse @ scores).T.float().contiguous()
