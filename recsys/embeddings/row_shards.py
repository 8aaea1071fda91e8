"""What every table that is sharded by rows over the ranks of a process group is.

Rank r holds rows [r * step, (r + 1) * step), step = ceil(rows / ranks). Every call of such a table
is a collective: all ranks make the same calls in the same order, with as many bags as each has.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.embeddings.table import TableConfig


class RowShards:
    """The rows of this rank, and the way to all of them."""

    is_sharded = True
    weight: Tensor
    state: dict[str, Tensor]

    def __init__(self, config: TableConfig) -> None:
        self.config, self.num_rows = config, config.total_rows
        self.rows_a_rank = -(-self.num_rows // dist.get_world_size())
        self.first_row = min(dist.get_rank() * self.rows_a_rank, self.num_rows)

    def gathered(self, *, with_state: bool = True) -> dict[str, Tensor] | None:
        """Return "weight", and the optimizer's state if asked, as whole tensors, (num_rows, ...).

        On the CPU of the first rank; None elsewhere.
        """
        tensors = {"weight": self.weight, **(self.state if with_state else {})}
        steps = tensors.pop("step", None)  # the same on every rank
        whole = {name: self._gathered(tensor.detach()) for name, tensor in tensors.items()}
        found = {name: tensor for name, tensor in whole.items() if tensor is not None}
        if found and steps is not None:
            found["step"] = steps.detach().cpu()
        return found or None

    def _gathered(self, own: Tensor) -> Tensor | None:
        world, step = dist.get_world_size(), self.rows_a_rank
        # Pieces of one size alone can be gathered.
        own = torch.cat([own, own.new_zeros(step - len(own), *own.shape[1:])]).contiguous()
        if dist.get_rank() > 0:
            dist.gather(own)
            return None
        whole = own.new_empty(step * world, *own.shape[1:])
        dist.gather(own, list(whole.split(step)))
        return whole[: self.num_rows].cpu()
