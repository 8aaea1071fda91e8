"""How often items come up in a stream of batches, estimated as they pass.

Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys
2019, section 4.1: in place of counts, the mean number of steps between two batches that hold an
item, delta; the probability of a batch to hold it is 1 / delta. That needs neither the catalogue
nor the log beforehand, and follows a distribution that changes.

Shape letters: C distinct items of a batch, H hash functions, R buckets of each.
"""

import torch
from torch import Tensor, nn

from recsys.embeddings.hashing import salts_of, table_rows


class StreamingFrequency(nn.Module):
    """Algorithms 2 and 3: arrays A (last step) and B (mean gap) of R buckets, for H hashes.

    A bucket of step t is hit where an item of the batch hashes to it, once however many do:
        B <- (1 - a) B + a (t - A);  A <- t
    Items that share a bucket make its gaps too short, so of an item's H buckets the longest gap
    counts. In place of a start from some B, the first 1 / rate gaps of a bucket weigh the same:
    a = max(rate, 1 / number of its gaps so far), which starts without a bias. The first gap
    runs from the start of the stream.

    rate: how fast a changed frequency is followed; the mean is over about the last 2 / rate gaps.
    """

    def __init__(self, num_buckets: int, *, num_hashes: int = 4, rate: float = 0.01) -> None:
        super().__init__()
        if num_buckets < 1 or num_hashes < 1:
            raise ValueError(f"{num_hashes} hashes of {num_buckets} buckets: both at least 1")
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {rate}")
        self.num_buckets, self.num_hashes, self.rate = num_buckets, num_hashes, rate
        self.register_buffer("salts", salts_of("frequency", num_hashes).clone(), persistent=False)
        size = num_hashes * num_buckets
        self.register_buffer("last", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("num_gaps", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("gap", torch.zeros(size))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, items_C: Tensor) -> None:
        """Take in the items of the next batch, (C,) int64."""
        last, num_gaps, gap, step = self._state()
        step += 1
        hit = self._buckets(items_C).unique()
        num_gaps[hit] += 1
        share = (1.0 / num_gaps[hit].float()).clamp(min=self.rate)
        gap[hit] += share * ((step - last[hit]).float() - gap[hit])
        last[hit] = step.int()

    @torch.no_grad()
    def log_probability(self, items_C: Tensor) -> Tensor:
        """Return log of the probability that a batch holds each item, (C,) float32, at most 0.

        An item that has not come up is assumed to come up in the next batch.
        """
        _, num_gaps, gap, step = self._state()
        buckets_HC = self._buckets(items_C)
        gap_HC = torch.where(num_gaps[buckets_HC] > 0, gap[buckets_HC], (step + 1).float())
        return -gap_HC.amax(0).log()

    def _buckets(self, items_C: Tensor) -> Tensor:
        """Return each item's bucket of each hash, (H, C) int64, numbered over all hashes."""
        rows_HC = table_rows(items_C, self.get_buffer("salts").unsqueeze(1), self.num_buckets)
        first_H = torch.arange(self.num_hashes, device=items_C.device) * self.num_buckets
        return rows_HC + first_H.unsqueeze(1)

    def _state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        last, num_gaps, gap, step = (
            self.get_buffer(name) for name in ("last", "num_gaps", "gap", "step")
        )
        return last, num_gaps, gap, step
