"""Normalisation of activations, by the name that a configuration gives it.

Batch normalisation (Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167, algorithm 1)
takes its statistics from all rows of a step: of several ranks those of the global batch, so that
one process or many train the same model; of rows with weights the weighted ones, so that a row of
weight 2 counts as two rows. The running statistics, which evaluation uses, are even means of the
first steps and then exponential ones, so that a short training does not end with their initial
values.

Shape letters: N rows, D activations; of fields: B rows, N fields, E width of a field.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.choices import Norm
from recsys.layers.normed_relu import can_fuse, normed

MOMENTUM = 0.1
"""Share of the newest step in the running statistics, once there were ten steps."""

_row_weights: ContextVar[Tensor | None] = ContextVar("row_weights", default=None)
_follows: ContextVar[bool] = ContextVar("follows", default=True)


@contextmanager
def rows_weigh(weight_N: Tensor | None) -> Iterator[None]:
    """Let the rows of a forward pass count in the statistics by their weights; None: evenly."""
    token = _row_weights.set(weight_N)
    try:
        yield
    finally:
        _row_weights.reset(token)


@contextmanager
def statistics_kept() -> Iterator[None]:
    """Leave the running statistics as they are: for rows that are no sample of the data."""
    token = _follows.set(False)
    try:
        yield
    finally:
        _follows.reset(token)


class BatchNorm(nn.Module):
    """Batch normalisation of (N, D), in single precision; one row alone is taken as evaluation."""

    running_mean: Tensor
    running_var: Tensor
    steps: Tensor

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x_ND: Tensor, *, relu: bool = False, dropout: float = 0.0) -> Tensor:
        """Return (N, D), of the dtype of `x_ND`; with `relu`, of a hidden layer with dropout."""
        weight_N = _row_weights.get()
        ranks = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        alone = self.training and not ranks and weight_N is None and len(x_ND) > 1
        if alone and can_fuse(x_ND):
            y_ND, mean_D, var_D = normed(
                x_ND, self.weight, self.bias, self.eps, relu=relu, dropout=dropout
            )
            self._follow(mean_D, var_D)
            return y_ND.to(x_ND.dtype)
        if alone:
            y_ND = self._of_rows(x_ND)
        elif self.training and (ranks or weight_N is not None):
            y_ND = self._of_weighted(x_ND, weight_N, ranks)
        else:
            y_ND = self._by_running(x_ND)
        return F.dropout(y_ND.relu(), dropout, self.training) if relu else y_ND

    def _of_rows(self, x_ND: Tensor) -> Tensor:
        # The operator gives no statistics; with a momentum of 1 it leaves them where it is told.
        mean_D, var_D = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y_ND = F.batch_norm(
            x_ND.float(), mean_D, var_D, self.weight, self.bias, True, 1.0, self.eps
        )
        self._follow(mean_D, var_D)
        return y_ND.to(x_ND.dtype)

    def _by_running(self, x_ND: Tensor) -> Tensor:
        return F.batch_norm(
            x_ND.float(), self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        ).to(x_ND.dtype)

    def _of_weighted(self, x_ND: Tensor, weight_N: Tensor | None, ranks: bool) -> Tensor:
        """Normalise with weighted sums, of all ranks."""
        x32_ND = x_ND.float()
        weight = x32_ND.new_ones(len(x_ND)) if weight_N is None else weight_N.float()
        weight_N1, total = weight.unsqueeze(1), _summed if ranks else _alone
        counts = total(torch.stack([weight.sum(), (weight > 0).sum()]))
        weighs, rows = counts[0].clamp(min=1e-12), float(counts[1])
        if rows < 2:
            return self._by_running(x_ND)
        mean_D = total((weight_N1 * x32_ND).sum(0)) / weighs
        centred_ND = x32_ND - mean_D
        var_D = total((weight_N1 * centred_ND.square()).sum(0)) / weighs
        with torch.no_grad():
            self._follow(mean_D, var_D * rows / (rows - 1))
        scale_D = self.weight * torch.rsqrt(var_D + self.eps)
        return (centred_ND * scale_D + self.bias).to(x_ND.dtype)

    @torch.no_grad()
    def _follow(self, mean_D: Tensor, var_D: Tensor) -> None:
        if not _follows.get():
            return
        self.steps += 1
        share = torch.clamp(1 / self.steps, min=MOMENTUM)
        self.running_mean.lerp_(mean_D, share)
        self.running_var.lerp_(var_D, share)


NORMS: dict[Norm, Callable[[int], list[nn.Module]]] = {
    "batch": lambda width: [BatchNorm(width)],
    "layer": lambda width: [nn.LayerNorm(width)],
    "none": lambda _width: [],
}


def norm_of(norm: Norm, width: int) -> list[nn.Module]:
    """Return the layer that normalises `width` activations, in a list; none of "none"."""
    return NORMS[norm](width)


def takes_bias_off(norm: Norm) -> bool:
    """Whether `norm` subtracts what a bias before it adds: an optimizer would only shake it."""
    return norm == "batch"


class FieldNorm(nn.Module):
    """Normalisation of fields (B, N, E): over the rows, of each field by itself, or none."""

    def __init__(self, norm: Norm, num_fields: int, width: int) -> None:
        super().__init__()
        self.by_row = norm == "batch"
        self.norm = nn.Sequential(*norm_of(norm, num_fields * width if self.by_row else width))

    def forward(self, x_BNE: Tensor) -> Tensor:
        """Return (B, N, E)."""
        if self.by_row:
            return self.norm(x_BNE.flatten(1)).view_as(x_BNE)
        normed: Tensor = self.norm(x_BNE)
        return normed


class _Summed(torch.autograd.Function):
    """The sum over ranks, whose gradient is the sum of theirs: each rank's loss depends on it."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    """Return the sum over ranks, with gradient."""
    total: Tensor = _Summed.apply(values)  # type: ignore[no-untyped-call]
    return total


def _alone(values: Tensor) -> Tensor:
    return values
