"""An interacting layer of AutoInt in one pass over the rows (`field_attention.cc`).

Operators one by one read and write the attention of all rows, N x N a head, again and again, in
products of a few numbers each. Here a vector of rows is worked off at a time, one in each lane,
and all between the layer's input and its output stays in the cache; the backward pass computes it
again, from inputs and outputs alone.

Shape letters: B rows, N fields, E width into a layer, H heads, A width of a head, D = H * A.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.core.native import in_parallel, native_library

SOURCE = Path(__file__).with_suffix(".cc")
LANES = 16
"""Rows that a share of the work is a multiple of: lanes of a vector, or twice as many."""
_LONG, _FLOAT, _TENSOR = ctypes.c_long, ctypes.c_float, ctypes.c_void_p


def can_fuse(x_BNE: Tensor, head_dim: int) -> bool:
    """Whether `fused_layer` runs here: on a CPU with a compiler, not in double, not traced."""
    return (
        x_BNE.is_cpu
        and x_BNE.dtype in (torch.float32, torch.bfloat16)
        and not torch.compiler.is_compiling()
        and native_library(SOURCE, head_dim=head_dim) is not None
    )


def fused_layer(x_BNE: Tensor, weight: Tensor, heads: int, scale: float) -> Tensor:
    """Return relu(softmax(scale * query key^T) value + residual), (B, N, D) float32.

    Single precision throughout, under autocast as well.

    Args:
        x_BNE: float32 or bfloat16.
        weight: (4 D, E) float32, of query, key, value and residual, each head by head.
        heads: H.
        scale: of the inner products.
    """
    mixed: Tensor = _FusedLayer.apply(x_BNE.float(), weight, heads, scale)  # type: ignore[no-untyped-call]
    return mixed


class _FusedLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BNE: Tensor, weight: Tensor, heads: int, scale: float) -> Tensor:
        x_BNE, weight = x_BNE.contiguous(), weight.contiguous()
        num_rows, num_fields, _ = x_BNE.shape
        y_BND = x_BNE.new_empty(num_rows, num_fields, len(weight) // 4)
        run = _Kernel("forward", x_BNE, weight, heads, scale)
        in_parallel(num_rows, lambda rows: run([x_BNE[rows], weight, y_BND[rows]]), LANES)
        ctx.save_for_backward(x_BNE, weight, y_BND)
        ctx.heads, ctx.scale = heads, scale
        return y_BND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BND: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_BNE, weight, y_BND = ctx.saved_tensors
        dy_BND, dx_BNE = dy_BND.float().contiguous(), torch.empty_like(x_BNE)
        run = _Kernel("backward", x_BNE, weight, ctx.heads, ctx.scale)

        def rows_backward(rows: slice) -> Tensor:
            dweight = torch.zeros_like(weight)
            run([x_BNE[rows], weight, y_BND[rows], dy_BND[rows], dx_BNE[rows], dweight])
            return dweight

        dweights = in_parallel(len(x_BNE), rows_backward, LANES)
        return dx_BNE, torch.stack(dweights).sum(0), None, None


class _Kernel:
    """A function of the library with all that it takes besides tensors of some rows."""

    def __init__(self, name: str, x_BNE: Tensor, weight: Tensor, heads: int, scale: float) -> None:
        library = native_library(SOURCE, head_dim=len(weight) // (4 * heads))
        assert library is not None
        self.call, self.scale = library[name], scale
        self.sizes = (x_BNE.shape[1], x_BNE.shape[2], heads)
        count = library.work_floats
        count.argtypes, count.restype = [_LONG] * 3, _LONG
        self.work_floats: int = count(*self.sizes)

    def __call__(self, tensors: list[Tensor]) -> None:
        work = torch.empty(self.work_floats)  # torch aligns to 64 bytes, as vectors want it
        self.call(
            *(_TENSOR(tensor.data_ptr()) for tensor in tensors),
            *(_LONG(size) for size in (len(tensors[0]), *self.sizes)),
            _FLOAT(self.scale),
            _TENSOR(work.data_ptr()),
        )
