"""The table of plain tensors: one `embedding_bag` forward; a pass over the rows read back.

Runs wherever torch runs, on every device, with the numbers of FBGEMM's kernel to 3e-7. The way
back is a loop of our own on CPUs with a compiler (`recsys.embeddings.row_step`), else a sort and
an `embedding_bag`.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.embeddings.row_step import RowStep, can_step
from recsys.embeddings.table import ADAMS, TableConfig


class TorchTable:
    """A `recsys.embeddings.table.Table` of plain tensors."""

    first_row = 0

    def __init__(self, config: TableConfig, device: torch.device) -> None:
        self.config = config
        self.learning_rate = config.learning_rate
        self.num_rows = config.total_rows
        self.weight = torch.zeros(self.num_rows, config.dim, device=device)
        shapes = config.state_shapes(self.num_rows)
        self.state = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}

    @cached_property
    def _row_step(self) -> RowStep | None:
        return RowStep(self.config) if can_step(self.config, self.weight.device) else None

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return (bags, dim)."""
        # Autograd calls a backward only where an input wants a gradient; this one is a placeholder.
        trigger = torch.zeros((), device=self.weight.device, requires_grad=True)
        pooled: Tensor = _FusedBag.apply(trigger, rows, offsets, weights, self)  # type: ignore[no-untyped-call]
        return pooled

    @torch.no_grad()
    def update(self, rows: Tensor, offsets: Tensor, weights: Tensor | None, grad: Tensor) -> None:
        """Step on the rows read: rows (T,), offsets (bags + 1,), grad (bags, dim)."""
        if "step" in self.state:
            self.state["step"] += 1
        if not len(rows):
            return
        bag_of = None
        if len(grad) != len(rows):  # not one row a bag
            bags = torch.arange(len(grad), device=grad.device)
            bag_of = torch.repeat_interleave(bags, offsets.diff(), output_size=len(rows))
        if self._row_step is not None:
            self._row_step(rows, bag_of, weights, grad, self.weight, self.state, self.learning_rate)
            return
        sorted_rows, order = torch.sort(rows)
        touched, counts = torch.unique_consecutive(sorted_rows, return_counts=True)
        starts = counts.cumsum(0) - counts
        gradient = F.embedding_bag(
            order if bag_of is None else bag_of[order],
            grad.contiguous(),
            starts,
            mode="sum",
            per_sample_weights=None if weights is None else weights[order],
        )
        if self.config.weight_decay:
            gradient += self._decay(touched) * self.weight[touched]
        step = self._step(touched, gradient)
        self.weight.index_add_(0, touched, step, alpha=-self.learning_rate)

    def scale_learning_rate(self, factor: float) -> None:
        """Step `factor` times as far as configured from the next backward pass on."""
        self.learning_rate = self.config.learning_rate * factor

    def _decay(self, touched: Tensor) -> Tensor | float:
        """Return the decay of this step, or of all since each row was last read, (R, 1)."""
        if self.config.weight_decay_at == "reads":
            return self.config.weight_decay
        last, step = self.state["last"], self.state["step"]
        steps = step - last[touched]
        last[touched] = step
        return self.config.weight_decay * steps.unsqueeze(1)

    def _step(self, touched: Tensor, gradient: Tensor) -> Tensor:
        """Return what to go down by, times the learning rate, and keep the optimizer's state."""
        config, state = self.config, self.state
        if config.optimizer == "sgd":
            return gradient
        if config.optimizer in ADAMS:
            return self._adam(touched, gradient)
        square = gradient.square()
        if config.optimizer == "row_wise_adagrad":
            square = square.mean(1)
        total = state["sum"][touched] + square
        state["sum"][touched] = total
        size = total.sqrt() + config.eps
        return gradient / (size.unsqueeze(1) if size.ndim == 1 else size)

    def _adam(self, touched: Tensor, gradient: Tensor) -> Tensor:
        (first, second), state = self.config.betas, self.state
        count = float(state["step"])
        mean = torch.lerp(gradient, state["exp_avg"][touched], first)
        square = gradient.square()
        if self.config.optimizer == "row_wise_adam":
            square = square.mean(1)
        square = torch.lerp(square, state["exp_avg_sq"][touched], second)
        state["exp_avg"][touched], state["exp_avg_sq"][touched] = mean, square
        size = (square / (1 - second**count)).sqrt() + self.config.eps
        return mean / (1 - first**count) / (size.unsqueeze(1) if size.ndim == 1 else size)


class _FusedBag(torch.autograd.Function):
    """Sum-pooled bags forward; the optimizer's step as the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        trigger: Tensor,
        rows: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        table: TorchTable,
    ) -> Any:
        ctx.table = table
        ctx.save_for_backward(rows, offsets, weights)
        return F.embedding_bag(
            rows,
            table.weight,
            offsets,
            mode="sum",
            include_last_offset=True,
            per_sample_weights=weights,
        )

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, offsets, weights = ctx.saved_tensors
        if len(rows):
            ctx.table.update(rows, offsets, weights, grads[0])
        return None, None, None, None, None
