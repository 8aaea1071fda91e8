"""The pure-torch table: one `embedding_bag` forward; a sort and an `embedding_bag` back.

Runs wherever torch runs, on every device, with the numbers of FBGEMM's kernel to 3e-7.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.embeddings.table import TableConfig


class TorchTable:
    """A `recsys.embeddings.table.Table` of plain tensors."""

    first_row = 0

    def __init__(self, config: TableConfig, device: torch.device) -> None:
        self.config = config
        self.learning_rate = config.learning_rate
        self.num_rows = config.total_rows
        self.weight = torch.zeros(self.num_rows, config.dim, device=device)
        by_optimizer: dict[str, dict[str, tuple[int, ...]]] = {
            "sgd": {},
            "adagrad": {"sum": (self.num_rows, config.dim)},
            "row_wise_adagrad": {"sum": (self.num_rows,)},
            "row_wise_adam": {
                "exp_avg": (self.num_rows, config.dim),
                "exp_avg_sq": (self.num_rows,),
                "step": (1,),
            },
        }
        shapes = by_optimizer[config.optimizer]
        self.state = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return (bags, dim)."""
        # Autograd calls a backward only where an input wants a gradient; this one is a placeholder.
        trigger = torch.zeros((), device=self.weight.device, requires_grad=True)
        pooled: Tensor = _FusedBag.apply(trigger, rows, offsets, weights, self)  # type: ignore[no-untyped-call]
        return pooled

    @torch.no_grad()
    def update(self, rows: Tensor, offsets: Tensor, weights: Tensor | None, grad: Tensor) -> None:
        """Step on the rows read: rows (T,), offsets (bags + 1,), grad (bags, dim)."""
        sorted_rows, order = torch.sort(rows)
        touched, counts = torch.unique_consecutive(sorted_rows, return_counts=True)
        if len(grad) == len(rows):  # one row a bag
            bag_of = order
        else:
            bags = torch.arange(len(grad), device=grad.device)
            bag_of = torch.repeat_interleave(bags, offsets.diff(), output_size=len(rows))[order]
        starts = counts.cumsum(0) - counts
        gradient = F.embedding_bag(
            bag_of,
            grad.contiguous(),
            starts,
            mode="sum",
            per_sample_weights=None if weights is None else weights[order],
        )
        if self.config.weight_decay:
            gradient += self.config.weight_decay * self.weight[touched]
        step = self._step(touched, gradient)
        self.weight.index_add_(0, touched, step, alpha=-self.learning_rate)

    def scale_learning_rate(self, factor: float) -> None:
        """Step `factor` times as far as configured from the next backward pass on."""
        self.learning_rate = self.config.learning_rate * factor

    def _step(self, touched: Tensor, gradient: Tensor) -> Tensor:
        """Return what to go down by, times the learning rate, and keep the optimizer's state."""
        config, state = self.config, self.state
        if config.optimizer == "sgd":
            return gradient
        if config.optimizer == "row_wise_adam":
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
        state["step"] += 1
        count = float(state["step"])
        mean = torch.lerp(gradient, state["exp_avg"][touched], first)
        square = torch.lerp(gradient.square().mean(1), state["exp_avg_sq"][touched], second)
        state["exp_avg"][touched], state["exp_avg_sq"][touched] = mean, square
        size = (square / (1 - second**count)).sqrt() + self.config.eps
        return mean / (1 - first**count) / size.unsqueeze(1)


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
