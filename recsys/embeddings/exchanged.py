"""A table sharded by rows whose optimizer TorchRec's kernels do not have: Adam, and decay.

A call sends the number of each row that its bags read, once, to the rank that holds it and gets
the row back; the sums of its gradients go the same way, and each rank steps on its own rows with
the gradients of all ranks. Ranks that share a batch out end with the table that one process would
have; a rank of whose rows none was read moves its clock on as well.

Shape letters: U rows of the table that this rank reads, V rows of this rank that all read.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from recsys.embeddings.row_shards import RowShards
from recsys.embeddings.table import TableConfig, initial_rows
from recsys.embeddings.torch_table import TorchTable


class ExchangedTable(RowShards):
    """A `recsys.embeddings.table.Table` of which this process holds some rows, as plain tensors."""

    def __init__(self, config: TableConfig, device: torch.device, *, seed: int) -> None:
        """Build this rank's shard with seeded initial weights; collective.

        Args:
            config: of the whole table.
            device: of the shard.
            seed: of the initial weights, the same on every rank.
        """
        super().__init__(config)
        count = min(self.rows_a_rank, self.num_rows - self.first_row)
        own = config.model_copy(update={"num_rows": count, "groups": {}})
        self.own = TorchTable(own, device)
        self.weight, self.state = self.own.weight, self.own.state
        self.weight.copy_(initial_rows(config, seed, self.first_row, count))

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return (bags, dim) of this rank's bags."""
        rows_U, place_T = torch.unique(rows, return_inverse=True)
        trigger = torch.zeros((), device=self.weight.device, requires_grad=True)
        vectors_UD: Tensor = _Exchanged.apply(trigger, rows_U, self)  # type: ignore[no-untyped-call]
        return F.embedding_bag(
            place_T,
            vectors_UD,
            offsets,
            mode="sum",
            include_last_offset=True,
            per_sample_weights=weights,
        )

    def scale_learning_rate(self, factor: float) -> None:
        """Step `factor` times as far as configured from the next backward pass on."""
        self.own.scale_learning_rate(factor)

    def route(self, rows_U: Tensor) -> "Route":
        """Return who holds `rows_U`, ascending, and which own rows the other ranks want."""
        sizes = torch.bincount(rows_U // self.rows_a_rank, minlength=dist.get_world_size())
        wanted = torch.empty_like(sizes)
        dist.all_to_all_single(wanted, sizes)
        route = Route(sizes.tolist(), wanted.tolist())
        return Route(route.sent, route.wanted, route.to_holders(rows_U) - self.first_row)


@dataclass(frozen=True)
class Route:
    """sent: rows of each rank that this one reads; wanted: own rows that each rank reads.

    rows: the latter, (V,), counted from the first own one, those of rank 0 first.
    """

    sent: list[int]
    wanted: list[int]
    rows: Tensor | None = None

    def to_holders(self, each_U: Tensor) -> Tensor:
        """Send what belongs to the rows read, (U, ...), to the ranks that hold them: (V, ...)."""
        return _exchanged(each_U, self.sent, self.wanted)

    def to_readers(self, each_V: Tensor) -> Tensor:
        """Send what belongs to own rows, (V, ...), to the ranks that read them: (U, ...)."""
        return _exchanged(each_V, self.wanted, self.sent)


def _exchanged(values: Tensor, there: list[int], here: list[int]) -> Tensor:
    found = values.new_empty(sum(here), *values.shape[1:])
    dist.all_to_all_single(found, values.contiguous(), here, there)
    return found


class _Exchanged(torch.autograd.Function):
    """The rows that this rank reads, fetched from their holders; these step as the backward."""

    @staticmethod
    def forward(ctx: Any, trigger: Tensor, rows_U: Tensor, table: ExchangedTable) -> Any:
        ctx.table, ctx.route = table, table.route(rows_U)
        return ctx.route.to_readers(table.weight[ctx.route.rows])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_VD, rows_V = ctx.route.to_holders(grads[0]), ctx.route.rows
        one_each = torch.arange(len(rows_V) + 1, device=rows_V.device)
        ctx.table.own.update(rows_V, one_each, None, grad_VD)
        return None, None, None
