"""Vectors of a trained two-tower, as a catalogue of any size: what exact and filtered search meet.

A two-tower of width 64 (63 numbers and a bias) is trained on Gowalla by the settings of
`ann_export`. Where more items are wanted than there are, copies with noise follow.
"""

import sys
from pathlib import Path

import torch
from _harness import Benchmark
from _loaned import loaned
from ann_export import trained_vectors
from torch import Tensor

NOISE = 0.4
"""Norm of what is added to a copy; vectors have norms of about 1."""
_SETTINGS = ("model.dim=63",)


def catalogue(benchmark: Benchmark, folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """Return vectors (size, 64) of items and (Q, 64) of users, in an order of their own each."""
    loaned("gowalla")
    if not benchmark.smoke:
        benchmark.overrides = (*_SETTINGS, *benchmark.overrides)
    items, queries, geometry = trained_vectors(benchmark, folder)
    if geometry != "biased_sphere":
        sys.exit(f"vectors of a biased sphere are wanted, got {geometry}")
    return widened(items, size), queries.contiguous()


def widened(items: Tensor, size: int) -> Tensor:
    """Return `size` items: the first are as they are, copies with noise follow."""
    generator = torch.Generator().manual_seed(0)
    parts, count = [items], len(items)
    while count < size:
        copies = items[torch.randperm(len(items), generator=generator)]
        noise = torch.randn(copies.shape, generator=generator)
        parts.append(copies + noise * NOISE / copies.shape[1] ** 0.5)
        count += len(copies)
    return torch.cat(parts)[:size].contiguous()
