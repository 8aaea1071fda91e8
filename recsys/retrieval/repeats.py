"""Items that a session holds already come back or are done with: a query says how much they gain.

Ren et al., "RepeatNet: A Repeat Aware Neural Recommendation Machine for Session-based
Recommendation", AAAI 2019, let a session choose between repeating and exploring. Here the choice is
one number next to a query's vector, which is added to the scores of the items in its history
(`recsys.retrieval.gains`).

Shape letters: Q queries, P steps that ask, T events in all.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged


def earlier_items(history: Jagged, asks_P: Tensor) -> Jagged:
    """Return the distinct items up to and including each step, P rows, in ascending order.

    history: sessions of T steps in all; asks_P (P,) int64: steps, 0..T-1.
    """
    device = asks_P.device
    start_P = history.offsets[:-1][history.owners()[asks_P]]
    lengths_P = asks_P - start_P + 1
    offsets = F.pad(lengths_P.cumsum(0), (1, 0))
    row = torch.repeat_interleave(
        torch.arange(len(asks_P), device=device), lengths_P, output_size=int(offsets[-1])
    )
    at = torch.arange(len(row), device=device) - offsets[:-1][row] + start_P[row]
    return distinct(Jagged(history.values[at], offsets))


def distinct(rows: Jagged) -> Jagged:
    """Return the distinct values of each row, ascending; values are not negative."""
    if not len(rows.values):
        return rows
    size = int(rows.values.max()) + 1
    pairs = (rows.owners() * size + rows.values).unique()
    row = torch.div(pairs, size, rounding_mode="floor")
    counts = torch.bincount(row, minlength=len(rows))
    return Jagged(pairs % size, F.pad(counts.cumsum(0), (1, 0)))


def repeat_gains(history: Jagged, gain_Q: Tensor) -> Jagged:
    """Return the distinct items of each history with what they gain, as `search_with_gains` reads.

    Args:
        history: Q rows of item rows.
        gain_Q: (Q,) what the items of a query's history gain.
    """
    own = distinct(history)
    return replace(own, weights=gain_Q[own.owners()])
