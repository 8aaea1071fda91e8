"""Items that a session holds already come back or are done with: a query says how much they gain.

Ren et al., "RepeatNet: A Repeat Aware Neural Recommendation Machine for Session-based
Recommendation", AAAI 2019, let a session choose between repeating and exploring. Here the choice is
one number next to a query's vector, which is added to the scores of the items in its history. No
index needs to know: it is asked for the best of all other items, and those of the history, few and
known, are scored with them. That is exact where the index is.

Shape letters: Q queries, W width of an item's vector, P steps that ask, T events in all.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.interests import merged, search
from recsys.sampling.candidates import row_by_row


def earlier_items(history: Jagged, asks_P: Tensor) -> Jagged:
    """Return the distinct items up to and including each step, P rows, in ascending order.

    history: sessions of T steps in all; asks_P (P,) int64: steps, 0..T-1.
    """
    device = asks_P.device
    session_T = torch.repeat_interleave(
        torch.arange(len(history), device=device),
        history.lengths(),
        output_size=len(history.values),
    )
    start_P = history.offsets[:-1][session_T[asks_P]]
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
    row = torch.repeat_interleave(
        torch.arange(len(rows), device=rows.values.device),
        rows.lengths(),
        output_size=len(rows.values),
    )
    pairs = (row * size + rows.values).unique()
    row = torch.div(pairs, size, rounding_mode="floor")
    counts = torch.bincount(row, minlength=len(rows))
    return Jagged(pairs % size, F.pad(counts.cumsum(0), (1, 0)))


def search_with_repeats(
    index: Index,
    item_vectors: Tensor,
    queries: Tensor,
    gain_Q: Tensor,
    history: Jagged,
    k: int,
    exclude: Jagged | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scores (Q, k) and item rows (Q, k), best first, as `Index.search`.

    Args:
        index: over the rows of `item_vectors`.
        item_vectors: (n, W).
        queries: (Q, W).
        gain_Q: (Q,) what the items of a query's history gain.
        history: Q rows of item rows.
        k: length of the lists.
        exclude: Q rows of item rows to leave out, those of the history among them or not.
    """
    own = distinct(history)
    if exclude is not None:
        hidden = distinct(exclude)
        own = _without(own, hidden, len(item_vectors))
        exclude = row_by_row(hidden, own)  # no item is in both
    scores, rows = search(index, queries, k, own if exclude is None else exclude)
    own_scores, own_rows = _scored(item_vectors, queries, gain_Q, own)
    return merged(torch.cat([scores, own_scores], 1), torch.cat([rows, own_rows], 1), k)


def _scored(
    item_vectors: Tensor, queries: Tensor, gain_Q: Tensor, own: Jagged
) -> tuple[Tensor, Tensor]:
    """Return scores and rows of each query's own items, (Q, longest), -inf and -1 behind them."""
    lengths = own.lengths()
    row = torch.repeat_interleave(torch.arange(len(own)), lengths)
    place = torch.arange(len(row)) - own.offsets[row]
    shape = (len(own), int(lengths.max()) if len(own) else 0)
    scores = torch.full(shape, -torch.inf)
    rows = torch.full(shape, -1)
    scores[row, place] = (queries[row] * item_vectors[own.values]).sum(1) + gain_Q[row]
    rows[row, place] = own.values
    return scores, rows


def _without(rows: Jagged, others: Jagged, size: int) -> Jagged:
    """Return each row's values that are not among those of `others`; all are below `size`."""
    row = torch.repeat_interleave(torch.arange(len(rows)), rows.lengths())
    other = torch.repeat_interleave(torch.arange(len(others)), others.lengths())
    kept = ~torch.isin(row * size + rows.values, other * size + others.values)
    counts = torch.bincount(row[kept], minlength=len(rows))
    return Jagged(rows.values[kept], F.pad(counts.cumsum(0), (1, 0)))
