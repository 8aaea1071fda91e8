"""A table of another size with what the old one learnt.

A value whose hash is h (32 bits, salt mixed in) reads row floor(h * R / 2^32) of a table of R
rows, so a row represents an interval of hashes, and rows of two tables correspond where their
intervals overlap. No value has to be known for that.

- R' a multiple of R: each new row is within one old row. Every value reads what it read before:
  nothing is lost, and values that shared a row may now part.
- Any other R' > R: a row across the border of two old rows, at most (R - 1) / R' of
  them, starts as their mean, weighted by the overlap.
- R' < R: a new row is the mean of those that it replaces; values that had different rows meet.

The optimizer's state goes the same way, so that rows do not take first steps again.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from recsys.embeddings.plan import EmbeddingPlan


def resized(rows: Tensor, num_rows: int) -> Tensor:
    """Return `num_rows` rows for the hashes of `rows` (R, ...), (num_rows, ...)."""
    old = len(rows)
    if old == num_rows:
        return rows.clone()
    # In units of 1 / (R * R'): new row r covers [r * R, (r + 1) * R), an old one R' of them.
    start = torch.arange(num_rows, dtype=torch.int64) * old
    first = start // num_rows
    most = int(((start + old - 1) // num_rows - first).max())
    found = torch.zeros(num_rows, *rows.shape[1:], dtype=rows.dtype)
    for offset in range(most + 1):
        row = first + offset
        low, high = row * num_rows, (row + 1) * num_rows
        overlap = torch.minimum(high, start + old) - torch.maximum(low, start)
        share = overlap.clamp(min=0).to(rows.dtype) / old
        found += rows[row.clamp(max=old - 1)] * share.view(-1, *[1] * (rows.ndim - 1))
    return found


def share_blended(old: int, new: int) -> float:
    """Return which share of `new` rows starts as a mean of several of the `old` rows."""
    start = torch.arange(new, dtype=torch.int64) * old
    return float(((start + old - 1) // new > start // new).double().mean())


def regrown(
    old: EmbeddingPlan,
    new: EmbeddingPlan,
    tensors: Mapping[str, Tensor],
    fresh: Callable[[int, int], Tensor],
) -> dict[str, Tensor]:
    """Return the new table's tensors: shared rows from shared rows, groups from their namesakes.

    Args:
        old: plan of the table that `tensors` come from.
        new: plan of the table wanted.
        tensors: "weight" (old.total_rows, dim) and the optimizer's state, a row of the table
            each; "step" (1,) is passed on.
        fresh: first row and count -> initial weights (count, dim), for the rows of groups that
            the old table did not have.
    """
    old_ranges, new_ranges = _ranges(old), _ranges(new)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == "step":
            found[name] = tensor.clone()
            continue
        parts = []
        for group, (first, count) in new_ranges.items():
            if group in old_ranges:
                low, size = old_ranges[group]
                parts.append(resized(tensor[low : low + size], count))
            elif name == "weight":
                parts.append(fresh(first, count))
            else:
                parts.append(torch.zeros(count, *tensor.shape[1:]))
        found[name] = torch.cat(parts)
    return found


def carried_features(old: EmbeddingPlan, new: EmbeddingPlan) -> frozenset[str]:
    """Return the features of both plans that read corresponding rows: same salts and group."""
    shared = {name for name, _ in old.features} & {name for name, _ in new.features}
    return frozenset(name for name in shared if _place_of(old, name) == _place_of(new, name))


def _place_of(plan: EmbeddingPlan, feature: str) -> tuple[str, str]:
    """Return whose salts a feature has, and its group, "" for none."""
    source = plan.source_of(feature)
    return source, next((group.name for group in plan.groups if source in group.features), "")


def _ranges(plan: EmbeddingPlan) -> dict[str, tuple[int, int]]:
    """Name of a group -> its first row and number of rows; "" for the shared ones."""
    ranges = {"": (0, plan.num_rows)}
    first = plan.num_rows
    for group in plan.groups:
        ranges[group.name] = (first, group.num_rows)
        first += group.num_rows
    return ranges
