"""Candidates of several sources for each request, and what each source says of them.

Letters: B requests, S sources, K_s candidates that source s names at most, C candidates of all
requests together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.distinct import distinct_codes
from recsys.data.batch import Jagged


@dataclass(frozen=True)
class Candidates:
    """Distinct items for each of B requests, ascending, with what the sources say of them.

    items: B rows of item rows, C in all. rank: (C, S) int32 from 1, 0 where a source does not name
    the item. score: (C, S) float32, 0 where it does not. position: (C, S) float32, the score in
    standard deviations from the mean of what the source names for the request, 0 where it does
    not. takes: (S,) how many each source names at most.
    """

    items: Jagged
    rank: NDArray[np.int32]
    score: NDArray[np.float32]
    position: NDArray[np.float32]
    takes: NDArray[np.int64]

    @classmethod
    def of(
        cls, lists: Sequence[tuple[Tensor, Tensor]], num_items: int, takes: Sequence[int]
    ) -> "Candidates":
        """Join lists.

        Args:
            lists: of each source scores and item rows, (B, K_s) each, best first, -1 where short.
            num_items: size of the catalogue.
            takes: how many each source was asked for.
        """
        count = len(lists[0][0])
        keys, where, ranks, scores, positions = [], [], [], [], []
        for number, (score, rows) in enumerate(lists):
            found = (rows >= 0).numpy()
            query, place = np.nonzero(found)
            keys.append(query * num_items + rows.numpy()[found])
            where.append(np.full(len(query), number))
            ranks.append(place + 1)
            scores.append(score.numpy()[found])
            positions.append(_in_deviations(score, rows).numpy()[found])
        distinct, code = distinct_codes(np.concatenate(keys))
        shape = (len(distinct), len(lists))
        source = np.concatenate(where)

        query, item = np.divmod(distinct, num_items)
        rank = np.zeros(shape, np.int32)
        value, position = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        rank[code, source] = np.concatenate(ranks)
        value[code, source] = np.concatenate(scores)
        position[code, source] = np.concatenate(positions)
        items = Jagged.of_lengths(item, np.bincount(query, minlength=count))
        return cls(items, rank, value, position, np.array(takes, np.int64))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def named(self) -> NDArray[np.bool_]:
        """Which source names which candidate, (C, S)."""
        return self.rank > 0

    def named_by(self, source: int, most: int) -> NDArray[np.int64]:
        """Return the items that a source names, best first, (B, most); -1 where it names fewer."""
        rank = self.rank[:, source]
        its = (rank > 0) & (rank <= most)
        found = np.full((len(self), most), -1)
        found[self.items.owners().numpy()[its], rank[its] - 1] = self.items.values.numpy()[its]
        return found

    def ordered(self, score: NDArray[np.floating], k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best k candidates of each request by `score` (C,), ties by the smaller item.

        Returns:
            scores (B, k) float32, item rows (B, k) int64 and candidates (B, k) int64, -1 and -inf
            where a list is short.
        """
        owner = self.items.owners().numpy()
        order = np.lexsort((-score, owner))
        starts = self.items.offsets.numpy()[:-1]
        place = np.arange(len(order)) - starts[owner[order]]
        kept = place < k
        chosen = torch.full((len(self), k), -1)
        chosen[torch.from_numpy(owner[order][kept]), torch.from_numpy(place[kept])] = (
            torch.from_numpy(order[kept])
        )
        # Candidate -1 is that of the last place.
        values = torch.from_numpy(np.append(score, -np.inf).astype(np.float32))
        items = torch.cat([self.items.values, torch.tensor([-1])])
        return values[chosen], items[chosen], chosen

    def take(self, chosen: Tensor) -> "Candidates":
        """Return the candidates `chosen` (B, k) alone, -1 where there are fewer."""
        return self.only(np.sort(chosen[chosen >= 0].numpy()))

    def only(self, numbers: NDArray[np.int64]) -> "Candidates":
        """Return the candidates `numbers` (M,), ascending; requests without one stay, empty."""
        owner = self.items.owners().numpy()[numbers]
        values = self.items.values.numpy()[numbers]
        items = Jagged.of_lengths(values, np.bincount(owner, minlength=len(self)))
        return Candidates(
            items, self.rank[numbers], self.score[numbers], self.position[numbers], self.takes
        )


def _in_deviations(score: Tensor, rows: Tensor) -> Tensor:
    """Return scores (B, K) in deviations from the mean of each list, 0 where there is one."""
    found = rows >= 0
    known = torch.where(found, score.double(), 0.0)
    count = found.sum(1, keepdim=True).clamp(min=1)
    mean = known.sum(1, keepdim=True) / count
    centred = torch.where(found, score.double() - mean, 0.0)
    deviation = (centred.square().sum(1, keepdim=True) / count).sqrt()
    return (centred / deviation.clamp(min=1e-12)).float().clamp(-10, 10)
