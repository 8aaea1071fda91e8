"""Queries unlike those of training are answered by a mixture of prototypes.

After Lu et al., "Learning with Mixture of Prototypes for Out-of-Distribution Detection", ICLR 2024,
https://arxiv.org/abs/2402.02653: directions are a mixture of K von Mises-Fisher distributions of
one concentration k around their prototypes p, and what has a low density there is far from all
training. Classes, which the paper's losses need, recommendation has none, so the mixture is fitted
to the query vectors of a trained two-tower by expectation maximisation.

    far:  log sum_j w_j exp(k p_j . q) below the quantile `share` of the training queries
    its answer:  (1 - blend) q + blend sum_j r_j p_j, at unit length,  r = softmax(log w + k p . q)

Shape letters: N training queries, Q queries, K prototypes, E width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Prototypes:
    """directions (K, E) of unit length; log_weight (K,); densities (N,) of training, ascending."""

    directions: Tensor
    log_weight: Tensor
    concentration: float
    densities: Tensor

    @classmethod
    def fit(
        cls, unit_NE: Tensor, count: int, concentration: float, *, rounds: int = 20, seed: int = 0
    ) -> "Prototypes":
        """Return the mixture of `count` prototypes of unit vectors."""
        drawn = torch.randperm(len(unit_NE), generator=torch.Generator().manual_seed(seed))
        directions = unit_NE[drawn[:count]]
        log_weight = torch.zeros(len(directions)).log_softmax(0)
        for _ in range(rounds):
            share_NK = (log_weight + concentration * unit_NE @ directions.T).softmax(1)
            directions = F.normalize(share_NK.T @ unit_NE, dim=1)
            log_weight = share_NK.mean(0).clamp(min=1e-12).log()
        found = cls(directions, log_weight, concentration, unit_NE[:0, 0])
        return cls(directions, log_weight, concentration, found.density(unit_NE).sort().values)

    def density(self, unit_QE: Tensor) -> Tensor:
        """Return the log of the density up to a constant, (Q,)."""
        return self._logits(unit_QE).logsumexp(1)

    def answer(self, unit_QE: Tensor, share: float, blend: float) -> Tensor:
        """Return the queries, (Q, E), those far from training moved to the prototypes."""
        mixed_QE = self._logits(unit_QE).softmax(1) @ self.directions
        moved_QE = F.normalize((1 - blend) * unit_QE + blend * F.normalize(mixed_QE, dim=1), dim=1)
        far_Q1 = (self.density(unit_QE) < self.densities.quantile(share)).unsqueeze(1)
        return torch.where(far_Q1, moved_QE, unit_QE)

    def _logits(self, unit_QE: Tensor) -> Tensor:
        return self.log_weight + self.concentration * unit_QE @ self.directions.T
