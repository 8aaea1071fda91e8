"""FBGEMM's table-batched embedding with one table and one stream of bags."""

from functools import cache

import torch
from torch import Tensor

from recsys.core.imports import logging_untouched
from recsys.embeddings.table import TableConfig


@cache
def imports() -> bool:
    """Return whether FBGEMM is installed and loads."""
    try:
        with logging_untouched():
            import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def supports(config: TableConfig) -> bool:
    """Return whether FBGEMM is installed and can run the table of `config`."""
    return config.lacking_in_fbgemm is None and imports()


class FbgemmTable:
    """A `recsys.embeddings.table.Table` on FBGEMM's CPU or CUDA kernel."""

    first_row = 0

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
            "adagrad": EmbOptimType.EXACT_ADAGRAD,
            "sgd": EmbOptimType.EXACT_SGD,
        }
        location = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
        compute = ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU
        self.config = config
        self.num_rows = config.total_rows
        with logging_untouched():  # it writes by the root logger, which then gets a handler
            self.kernel = SplitTableBatchedEmbeddingBagsCodegen(
                [(self.num_rows, config.dim, location, compute)],
                optimizer=optimizers[config.optimizer],
                learning_rate=config.learning_rate,
                eps=config.eps,
                device=device,
            )
        self._no_gradient = torch.zeros(1, dtype=torch.int32, device=device)
        (self.weight,) = self.kernel.split_embedding_weights()
        states = self.kernel.split_optimizer_states()
        self.state: dict[str, Tensor] = {}
        if config.optimizer == "row_wise_adagrad":
            self.state["sum"] = states[0][0]
        elif config.optimizer == "adagrad":
            self.state["sum"] = states[0][0].view(self.num_rows, config.dim)

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return (bags, dim)."""
        # No gradient of the weights is needed; by default the CPU kernel computes one, at
        # 0.7 to 2.7 times the cost of the rest of a step.
        wanted = None if weights is None else self._no_gradient
        pooled: Tensor = self.kernel(
            rows, offsets, per_sample_weights=weights, feature_requires_grad=wanted
        )
        return pooled

    def scale_learning_rate(self, factor: float) -> None:
        """Step `factor` times as far as configured from the next backward pass on."""
        self.kernel.set_learning_rate(self.config.learning_rate * factor)
