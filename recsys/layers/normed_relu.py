"""Batch normalisation, ReLU and dropout of a hidden layer in one pass (`normed_relu.cc`).

Operators one by one write the activations of all rows five times over, and drawing what dropout
zeroes costs more than all else of a layer but its product. Here statistics take one pass, all the
rest another one, and dropout is a hash of an activation's index; the backward pass computes what it
needs from the input and the output alone.

Shape letters: N rows, D activations.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.core.native import in_parallel, native_library

SOURCE = Path(__file__).with_suffix(".cc")
_WORDS = 2**32


def can_fuse(x_ND: Tensor) -> bool:
    """Whether `normed` runs here: on a CPU with a compiler, not in double, not traced."""
    return (
        x_ND.is_cpu
        and x_ND.dtype in (torch.float32, torch.bfloat16)
        and not torch.compiler.is_compiling()
        and native_library(SOURCE) is not None
    )


def normed(
    x_ND: Tensor,
    weight_D: Tensor,
    bias_D: Tensor,
    eps: float,
    *,
    relu: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows normalised over this batch, float32, and its mean and unbiased variance, (D,).

    Args:
        x_ND: of two rows or more, float32 or bfloat16.
        weight_D: what the normalised are multiplied by.
        bias_D: what is added to them.
        eps: added to the variance.
        relu: whether what is negative then becomes 0.
        dropout: the probability that a number then becomes 0, the others being divided by the rest
            of it; with `relu` alone.
    """
    assert relu or not dropout
    done: tuple[Tensor, Tensor, Tensor] = _Normed.apply(  # type: ignore[no-untyped-call]
        x_ND.float(), weight_D, bias_D, eps, relu, dropout
    )
    return done


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_D: Tensor,
        bias_D: Tensor,
        eps: float,
        relu: bool,
        dropout: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x_ND = x_ND.contiguous()
        rows, width = x_ND.shape
        mean_D, square_D = _moments(x_ND)
        inverse_D = (square_D / rows + eps).rsqrt()
        mean, inverse, scale = mean_D.float(), inverse_D.float(), (inverse_D * weight_D).float()
        grown = 1 / (1 - dropout)
        # Drawn where nothing else is, so that other draws are those of a layer without dropout.
        seed = int(torch.randint(_WORDS, ()).item()) if dropout else 0
        y_ND, shift = torch.empty_like(x_ND), bias_D.float().contiguous()

        def apply(share: slice) -> None:
            drawn = (seed, share.start * width, int(dropout * _WORDS))
            tensors = (x_ND[share], y_ND[share], mean, scale, shift)
            _call("apply", tensors, int(relu), *drawn, grown, torch.empty(width))

        in_parallel(rows, apply)
        ctx.save_for_backward(x_ND, y_ND, mean, inverse, scale)
        ctx.options = int(relu), grown
        variance = (square_D / (rows - 1)).float()
        ctx.mark_non_differentiable(mean, variance)
        return y_ND, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy_ND: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x_ND, y_ND, mean, inverse, scale = ctx.saved_tensors
        relu, grown = ctx.options
        dy_ND, dx_ND = dy_ND.float().contiguous(), torch.empty_like(x_ND)
        rows, width = x_ND.shape

        def sums(share: slice) -> Tensor:
            found = torch.empty(2, width, dtype=torch.float64)
            tensors = (x_ND[share], y_ND[share], dy_ND[share], mean, inverse, *found)
            _call("sums", tensors, relu, grown, torch.empty(2 * width))
            return found

        total = torch.stack(in_parallel(rows, sums)).sum(0)
        shares = (total / rows).float()

        def gradient(share: slice) -> None:
            tensors = (x_ND[share], y_ND[share], dy_ND[share], dx_ND[share], mean, inverse, scale)
            _call("gradient", (*tensors, *shares), relu, grown)

        in_parallel(rows, gradient)
        bias_grad, weight_grad = total.float()
        return dx_ND, weight_grad, bias_grad, None, None, None


def _moments(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each column and the sum of squares around it, in double."""
    width = x_ND.shape[1]

    def moments(share: slice) -> tuple[Tensor, int]:
        found = torch.empty(2, width, dtype=torch.float64)
        _call("moments", (x_ND[share], *found), torch.empty(2 * width))
        return found, len(x_ND[share])

    parts = in_parallel(len(x_ND), moments)
    means = torch.stack([found[0] for found, _ in parts])
    counts = torch.tensor([float(count) for _, count in parts], dtype=torch.float64).unsqueeze(1)
    mean_D = (counts * means).sum(0) / len(x_ND)
    squares = sum(found[1] for found, _ in parts)
    return mean_D, squares + (counts * (means - mean_D).square()).sum(0)


def _call(name: str, tensors: tuple[Tensor, ...], *others: Any) -> None:
    """Call a function of the library: tensors, the rows and columns of the first, what is left."""
    library = native_library(SOURCE)
    assert library is not None
    library[name](
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        *(ctypes.c_long(size) for size in tensors[0].shape),
        *(_argument(other) for other in others),
    )


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)
