"""What a set of embeddings looks like without labels: has it collapsed, does it spread?

Shape letters: N embeddings, E their width.
"""

import torch
from torch import Tensor

_CHUNK = 16_384


def rankme(embeddings_NE: Tensor) -> float:
    """Return the effective rank, from 1 (all on one line) to min(N, E); 0 for all zeros.

    Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", ICML 2023, https://arxiv.org/abs/2210.02885, equation 1:
        exp(-sum_k p_k log p_k),  p_k = sigma_k / sum_j sigma_j
    with sigma the singular values. The paper adds 1e-7 to p_k against log 0; here 0 log 0 = 0.

    Args:
        embeddings_NE: (N, E) float.
    """
    width = embeddings_NE.shape[1]
    gram_EE = torch.zeros(width, width, dtype=torch.float64, device=embeddings_NE.device)
    for start in range(0, len(embeddings_NE), _CHUNK):
        # Double precision: the eigenvalues of the Gram matrix are the *squares* of sigma.
        wide_NE = embeddings_NE[start : start + _CHUNK].detach().double()
        gram_EE += wide_NE.T @ wide_NE
    squares = torch.linalg.eigvalsh(gram_EE)
    # Below the rounding of the Gram matrix an eigenvalue is zero.
    noise = squares.max() * torch.finfo(torch.float64).eps * width
    sigma = torch.where(squares > noise, squares, 0.0).sqrt()
    if not sigma.any():
        return 0.0
    return float(torch.special.entr(sigma / sigma.sum()).sum().exp())


def alignment(query_NE: Tensor, candidate_NE: Tensor) -> float:
    """Return the mean squared distance of pairs, 0 (the same) to 4 (opposite) on unit vectors.

    Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere", ICML 2020, https://arxiv.org/abs/2005.10242, section 4.1.1,
    alpha = 2: mean_n |q_n - c_n|^2.

    Args:
        query_NE: (N, E) float; the paper's are unit vectors.
        candidate_NE: (N, E) float, row n the item of query n.
    """
    return float((query_NE.detach() - candidate_NE.detach()).square().sum(1).mean())


def uniformity(embeddings_NE: Tensor, *, max_rows: int = 5000) -> float:
    """Return how evenly unit vectors cover the sphere: 0 all in one place, lower is more even.

    Wang and Isola 2020 (see `alignment`), section 4.1.2, t = 2:
        log mean_{i != j} exp(-2 |x_i - x_j|^2)
    Costs min(N, max_rows) squared; above max_rows, that many evenly spaced rows represent all.

    Args:
        embeddings_NE: (N, E) float, N >= 2; the paper's are unit vectors.
        max_rows: at most this many rows are compared.

    Raises:
        ValueError: fewer than two rows.
    """
    count = min(len(embeddings_NE), max_rows)
    if count < 2:
        raise ValueError(f"uniformity compares pairs, so it needs two rows or more, got {count}")
    rows = torch.linspace(0, len(embeddings_NE) - 1, count, dtype=torch.float64).round().long()
    chosen_NE = embeddings_NE.detach()[rows.to(embeddings_NE.device)].float()
    square_N = chosen_NE.square().sum(1)
    total = 0.0
    for start in range(0, count, 1024):
        part_CE = chosen_NE[start : start + 1024]
        exponent_CN = 4 * (part_CE @ chosen_NE.T) - 2 * square_N
        exponent_CN -= 2 * square_N[start : start + 1024, None]
        total += float(exponent_CN.exp().double().sum())
    # Each vector met itself once, at distance 0.
    pairs = count * (count - 1)
    return float(torch.tensor((total - count) / pairs, dtype=torch.float64).log())
