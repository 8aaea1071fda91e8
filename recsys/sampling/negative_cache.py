"""Candidates of past batches that serve as negatives again: vectors without a gradient.

Wang et al., "Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021,
https://arxiv.org/abs/2110.15154: item vectors change slowly, so those of the last batches are
nearly what the tower would make of the items now, at the price of a product alone.

Shape letters: M entries at most, C candidates of a batch, K entries used, E width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cached:
    """Entries that join a batch's candidates.

    vectors (K, E) float32. item_rows (K,) int64, distinct and none of the batch's.
    log_inclusion (K,) and own_log_inclusion (C,) float32: log of the probability that each
    cached item, and each of the batch's own, is among the batch and the cache together.
    """

    vectors: Tensor
    item_rows: Tensor
    log_inclusion: Tensor
    own_log_inclusion: Tensor


class NegativeCache(nn.Module):
    """First in, first out, by whole batches: of each batch all candidates or none are there.

    So the cache is the sample of the last batches. With q_j the probability that one batch holds
    item j, the batch and a cache of s others hold it with probability 1 - (1 - q_j)^(1 + s).
    Of a batch with more candidates than `size`, a random part is kept, which counts as the share
    of a batch that it is.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a cache of {size} entries: at least 1")
        self.size = size
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("item_rows", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("log_q", torch.zeros(size))
        self.register_buffer("step_of", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("kept_share", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def push(self, vectors_CE: Tensor, item_rows_C: Tensor, log_q_C: Tensor) -> None:
        """Keep a batch's candidates, and forget the oldest batches that leave them no space.

        Args:
            vectors_CE: (C, E) float.
            item_rows_C: (C,) int64, distinct.
            log_q_C: (C,) float, log of the probability that a batch holds each.
        """
        step, filled, share = (self.get_buffer(n) for n in ("step", "filled", "kept_share"))
        step += 1
        share.fill_(min(1.0, self.size / max(len(item_rows_C), 1)))
        if len(item_rows_C) > self.size:
            # By the step, not by torch's own generator: all ranks have to keep the same ones.
            generator = torch.Generator().manual_seed(int(step))
            kept = torch.randperm(len(item_rows_C), generator=generator)[: self.size]
            kept = kept.to(item_rows_C.device)
            vectors_CE, item_rows_C, log_q_C = vectors_CE[kept], item_rows_C[kept], log_q_C[kept]
        space, old = self.size - len(item_rows_C), self._steps()
        newest_first, counts = (one.flip(0) for one in old.unique(return_counts=True))
        fits = newest_first[counts.cumsum(0) <= space]
        stay = torch.isin(old, fits).nonzero().flatten()
        new = {
            "vectors": vectors_CE.float(),
            "item_rows": item_rows_C,
            "log_q": log_q_C.float(),
            "step_of": step.expand(len(item_rows_C)),
        }
        count = len(stay) + len(item_rows_C)
        for name, values in new.items():
            buffer = self.get_buffer(name)
            buffer[:count] = torch.cat([buffer[stay], values])
        filled.fill_(count)

    @torch.no_grad()
    def beside(self, item_rows_C: Tensor, log_q_C: Tensor) -> Cached:
        """Return the newest entry of each item that is not among `item_rows_C`.

        Args:
            item_rows_C: (C,) int64, the batch's candidates.
            log_q_C: (C,) float, log of the probability that a batch holds each.
        """
        filled = int(self.get_buffer("filled"))
        rows = self.get_buffer("item_rows")[:filled]
        # Entries are oldest first: of equal ones the last write stays.
        distinct, code = rows.unique(return_inverse=True)
        newest = torch.full_like(distinct, -1)
        newest.scatter_reduce_(0, code, torch.arange(filled, device=rows.device), "amax")
        newest = newest[~torch.isin(distinct, item_rows_C)]
        return Cached(
            self.get_buffer("vectors")[newest],
            rows[newest],
            self._of_union(self.get_buffer("log_q")[newest]),
            self._of_union(log_q_C),
        )

    def _of_union(self, log_q: Tensor) -> Tensor:
        q = log_q.double().exp()
        batches = len(self._steps().unique())
        share = self.get_buffer("kept_share")
        missed = torch.log1p(-q.clamp(max=1 - 1e-12))
        missed = missed + batches * torch.log1p(-(q * share).clamp(max=1 - 1e-12))
        return (-torch.expm1(missed)).log().float()

    def _steps(self) -> Tensor:
        return self.get_buffer("step_of")[: int(self.get_buffer("filled"))]
