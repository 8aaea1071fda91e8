"""One embedding table whose update is fused into the backward pass: no dense gradient, ever.

Two twins with equal numbers: FBGEMM's CPU/CUDA kernel, and pure torch. Both answer

    table(rows (T,) int64, offsets (bags + 1,) int64) -> (bags, dim) float32, sum-pooled

and, when the result takes part in a backward pass, apply the optimizer's step to the rows
that were read and to nothing else. Call a table once a training step: two calls are two steps.
A table is no `nn.Module`: its weights are no parameters of the optimizer outside.

Row-wise Adagrad (one accumulator a row; the mean of the squared gradient over the width):
    state[r] += mean(g[r] ** 2);   weight[r] -= lr * g[r] / (sqrt(state[r]) + eps)
"""

from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recsys.strict import StrictModel


class TableConfig(StrictModel):
    """The shared table: its size, its optimizer, and the kernel that runs it."""

    num_rows: Annotated[int, Field(ge=1, le=2**31)] = 65_536
    """The one number that sets the memory: every feature's values share these rows."""
    dim: Annotated[int, Field(ge=1)] = 16
    optimizer: Literal["row_wise_adagrad", "sgd"] = "row_wise_adagrad"
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    eps: Annotated[float, Field(gt=0)] = 1e-8
    init_scale: Annotated[float, Field(gt=0)] = 0.1
    """Initial weights are uniform in [-init_scale, init_scale]."""
    backend: Literal["auto", "fbgemm", "torch"] = "auto"
    """`auto`: FBGEMM's kernel where it imports, else pure torch; the numbers are equal."""


class Table(Protocol):
    """What both twins answer."""

    def __call__(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Return (bags, dim), the sum of the rows of each bag."""

    @property
    def weight(self) -> Tensor:
        """The table itself, (num_rows, dim) float32, a view."""

    @property
    def row_state(self) -> Tensor:
        """The optimizer's accumulator, (num_rows,) float32, a view (zeros for SGD)."""

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use another learning rate from the next backward pass on."""


def build_table(config: TableConfig, *, device: torch.device, seed: int) -> Table:
    """Return a table with seeded initial weights, on the backend that `config` asks for."""
    backend = config.backend
    if backend == "auto":
        backend = "fbgemm" if _fbgemm_imports() else "torch"
    table: Table = (
        FbgemmTable(config, device) if backend == "fbgemm" else TorchTable(config, device)
    )
    generator = torch.Generator().manual_seed(seed)
    initial = torch.rand(config.num_rows, config.dim, generator=generator)
    with torch.no_grad():
        table.weight.copy_((initial * 2 - 1) * config.init_scale)
    return table


def _fbgemm_imports() -> bool:
    try:
        import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


class TorchTable:
    """The pure-torch twin: one `embedding_bag` forward, a sort and an `embedding_bag` back."""

    def __init__(self, config: TableConfig, device: torch.device) -> None:
        self.config = config
        self.learning_rate = config.learning_rate
        self.weight = torch.zeros(config.num_rows, config.dim, device=device)
        self.row_state = torch.zeros(config.num_rows, device=device)

    def __call__(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Return (bags, dim)."""
        # Autograd calls a backward only where an input wants a gradient; this one stands in.
        trigger = torch.zeros((), device=self.weight.device, requires_grad=True)
        pooled: Tensor = _FusedBag.apply(trigger, rows, offsets, self)  # type: ignore[no-untyped-call]
        return pooled

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use another learning rate from the next backward pass on."""
        self.learning_rate = learning_rate

    @torch.no_grad()
    def update(self, rows: Tensor, offsets: Tensor, grad: Tensor) -> None:
        """Step on the rows read: rows (T,), offsets (bags + 1,), grad (bags, dim)."""
        sorted_rows, order = torch.sort(rows)
        touched, counts = torch.unique_consecutive(sorted_rows, return_counts=True)
        bag_of = torch.repeat_interleave(
            torch.arange(len(grad), device=grad.device), offsets.diff(), output_size=len(rows)
        )
        starts = counts.cumsum(0) - counts
        step = F.embedding_bag(bag_of[order], grad.contiguous(), starts, mode="sum")
        if self.config.optimizer == "row_wise_adagrad":
            state = self.row_state[touched] + step.square().mean(1)
            self.row_state[touched] = state
            step = step / (state.sqrt() + self.config.eps).unsqueeze(1)
        self.weight.index_add_(0, touched, step, alpha=-self.learning_rate)


class _FusedBag(torch.autograd.Function):
    """Sum-pooled bags forward; the optimizer's step as the backward."""

    @staticmethod
    def forward(ctx: Any, trigger: Tensor, rows: Tensor, offsets: Tensor, table: TorchTable) -> Any:
        ctx.table = table
        ctx.save_for_backward(rows, offsets)
        return F.embedding_bag(rows, table.weight, offsets, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, offsets = ctx.saved_tensors
        if len(rows):
            ctx.table.update(rows, offsets, grads[0])
        return None, None, None, None


class FbgemmTable:
    """FBGEMM's table-batched embedding with one table and one stream of bags."""

    def __init__(self, config: TableConfig, device: torch.device) -> None:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        on_gpu = device.type == "cuda"
        optimizers = {
            "row_wise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            "sgd": EmbOptimType.EXACT_SGD,
        }
        location = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
        compute = ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU
        self.kernel = SplitTableBatchedEmbeddingBagsCodegen(
            [(config.num_rows, config.dim, location, compute)],
            optimizer=optimizers[config.optimizer],
            learning_rate=config.learning_rate,
            eps=config.eps,
            device=device,
        )
        (self._weight,) = self.kernel.split_embedding_weights()
        states = self.kernel.split_optimizer_states()
        has_state = config.optimizer == "row_wise_adagrad"
        self._state = states[0][0] if has_state else torch.zeros(config.num_rows, device=device)

    @property
    def weight(self) -> Tensor:
        """The table, a view into the kernel's storage."""
        return self._weight

    @property
    def row_state(self) -> Tensor:
        """The accumulators, a view into the kernel's storage."""
        return self._state

    def __call__(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Return (bags, dim)."""
        pooled: Tensor = self.kernel(rows, offsets)
        return pooled

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use another learning rate from the next backward pass on."""
        self.kernel.set_learning_rate(learning_rate)
