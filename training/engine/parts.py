"""What every training task is put together from, whatever its model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, PairBatch, RankingBatch, SessionBatch
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.row_shards import RowShards
from recsys.embeddings.table import Table
from recsys.embeddings.torch_table import TorchTable
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.training.config.experiment import LearnedExperiment
from recsys.training.engine.ranks import World

B = TypeVar("B", PairBatch, RankingBatch, SessionBatch)


def table_of(config: LearnedExperiment, plan: EmbeddingPlan, world: World) -> Table:
    """Return the table of `plan` with seeded initial weights, sharded where there are ranks."""
    seed = config.training.seed
    if world.size == 1:
        return build_table(config.embedding, device=world.device, seed=seed)
    from recsys.embeddings.sharded import sharded_table

    return sharded_table(
        config.embedding,
        world.device,
        seed=seed,
        weighted=any(layout.multi for layout in plan.layouts),
    )


def plain_table(config: LearnedExperiment, table: Table, world: World) -> TorchTable | None:
    """Return the whole table in this process's memory on the first rank, None on the others.

    All ranks call this. What a bundle is written from, and what the final model is evaluated on.
    """
    tensors: dict[str, Tensor] | None = {"weight": table.weight, **table.state}
    if world.size > 1:
        assert isinstance(table, RowShards)
        tensors = table.gathered(with_state=config.keep_optimizer_state)
    if tensors is None:
        return None
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    plain = TorchTable(config.embedding, torch.device("cpu"))
    plain.weight = state.pop("weight")
    plain.state = state
    return plain


def on_device(batches: Iterator[B], device: torch.device) -> Iterator[B]:
    """Yield the batches on `device`."""
    return batches if device.type == "cpu" else (batch.to(device) for batch in batches)


def whats_not_finite(table: Table, *inputs: tuple[FeatureBlock, FeatureLayout]) -> str:
    """Describe which dense columns of a batch, else whether the table, is not finite."""
    for block, layout in inputs:
        bad = (~torch.isfinite(block.dense)).any(0).nonzero().flatten().tolist()
        if bad:
            return f"not finite in the data: {', '.join(layout.dense[column] for column in bad)}"
    if bool(torch.isfinite(table.weight).all()):
        return "all inputs are finite"
    return "the embedding table holds values that are not finite"


@dataclass(frozen=True)
class BatchInWords(Generic[B]):
    """Names what is not finite in a batch, else its first rows of the log.

    log_rows (E,) int64: the row of each example; inputs: the blocks of a batch, in the order of the
    embedding's sides.
    """

    embedding: UnifiedEmbedding
    log_rows: NDArray[np.int64]
    inputs: Callable[[B], tuple[FeatureBlock, ...]]

    def __call__(self, batch: B) -> str:
        """Return the words."""
        rows = self.log_rows[batch.examples[:5].cpu().numpy()]
        inputs = zip(self.inputs(batch), self.embedding.plan.layouts, strict=False)
        found = whats_not_finite(self.embedding.table, *inputs)
        numbers = ", ".join(str(row + 1) for row in rows)
        return f"its first interactions are rows {numbers}; {found}"
