"""The step of a table's optimizer in one pass over the gradients (`row_step.cc`), on a CPU.

The same numbers as the operators of `recsys.embeddings.torch_table`, to the last digits; these
sort the reads and go over rows and state several times.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from recsys.core.native import native_library
from recsys.embeddings.table import Optimizer, TableConfig

SOURCE = Path(__file__).with_suffix(".cc")
_NUMBERS: dict[Optimizer, int] = {
    "sgd": 0,
    "adagrad": 1,
    "row_wise_adagrad": 2,
    "adam": 3,
    "row_wise_adam": 4,
}
_LONG, _TENSOR = ctypes.c_int64, ctypes.c_void_p


def can_step(config: TableConfig, device: torch.device) -> bool:
    """Whether `RowStep` runs here: on a CPU with a compiler."""
    return device.type == "cpu" and native_library(SOURCE, dim=config.dim) is not None


class RowStep:
    """Steps of the optimizer that `config` names; holds an integer for each row of the table."""

    def __init__(self, config: TableConfig) -> None:
        self.config = config
        library = native_library(SOURCE, dim=config.dim)
        assert library is not None
        self._call = library.row_step
        self._slot = torch.full((config.total_rows,), -1, dtype=torch.int32)

    def __call__(
        self,
        rows: Tensor,
        bags: Tensor | None,
        weights: Tensor | None,
        grad: Tensor,
        weight: Tensor,
        state: dict[str, Tensor],
        learning_rate: float,
    ) -> None:
        """Step on the rows that were read, in place.

        Args:
            rows: (T,) int64, of `weight`.
            bags: (T,) int64, whose gradient each read has; None: bag t read row t alone.
            weights: (T,) float32, of the reads; None: 1.
            grad: (bags, dim) float32.
            weight: (R, dim).
            state: as `TorchTable` has it, its clock moved on.
            learning_rate: of this step.
        """
        config, (first, second) = self.config, self.config.betas
        clock = float(state["step"]) if "step" in state else 0.0
        settings = torch.tensor(
            [
                learning_rate,
                config.eps,
                config.weight_decay,
                clock,
                first,
                second,
                1 - first**clock,
                1 - second**clock,
            ]
        )
        moments = [state.get("exp_avg", state.get("sum")), state.get("exp_avg_sq")]
        touched = torch.empty(len(rows), dtype=torch.int64)
        sums = torch.empty(len(rows), config.dim)
        before = (rows, bags, weights, grad)
        after = (weight, *moments, state.get("last"), self._slot, touched, sums)
        inputs = [None if tensor is None else tensor.contiguous() for tensor in before]
        self._call(
            *map(_pointer, inputs),
            _LONG(len(rows)),
            *map(_pointer, after),
            _LONG(_NUMBERS[config.optimizer]),
            _pointer(settings),
        )


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return _TENSOR(None if tensor is None else tensor.data_ptr())
