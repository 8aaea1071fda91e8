"""The average of the weights over the last steps, which is evaluated and kept instead of them.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
section 3: weights that go around a minimum at a high learning rate have a mean that is nearer to
it than any of them. Here the mean is exponential, so that it forgets the first steps, and the
embedding table is a part of it: it costs a copy of all weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recsys.embeddings.shards_on_disk import StoredRows
from recsys.embeddings.table import Table

_UPDATES = 10  # an epoch
_ROWS = 1 << 16  # of a table, exchanged at a time


class WeightAverage:
    """A mean of the weights of a model and its table, over about the last `epochs`.

    every: the weights join it each so many steps.
    """

    def __init__(self, model: nn.Module, table: Table, epochs: float, num_steps: int) -> None:
        self.every = max(1, num_steps // _UPDATES)
        self.share = min(1.0, self.every / (num_steps * epochs))
        self.count = 0
        self.dense = {name: value.detach().clone() for name, value in model.state_dict().items()}
        sharded = getattr(table, "is_sharded", False)
        self.rows = StoredRows(table.weight.detach().clone(), table.num_rows, sharded)

    @torch.no_grad()
    def update(self, model: nn.Module, table: Table) -> None:
        """Add the current weights: the first ones evenly, later ones at a fixed share."""
        self.count += 1
        share = max(self.share, 1 / self.count)
        for own, value in self._pairs(model, table):
            if own.is_floating_point():
                own.lerp_(value, share)
            else:
                own.copy_(value)

    @contextmanager
    def shown(self, model: nn.Module, table: Table) -> Iterator[None]:
        """Let model and table hold the average for a while; before the first update, themselves."""
        self._exchange(model, table)
        try:
            yield
        finally:
            self._exchange(model, table)

    @torch.no_grad()
    def put(self, model: nn.Module, table: Table) -> None:
        """Leave the average in model and table."""
        if self.count:
            for own, value in self._pairs(model, table):
                value.copy_(own)

    def tensors(self) -> dict[str, Tensor]:
        """Return all but the table's rows as named tensors."""
        return {"count": torch.tensor(self.count), **{f"of.{n}": t for n, t in self.dense.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        self.count = int(tensors["count"])
        for name, own in self.dense.items():
            own.copy_(tensors[f"of.{name}"])

    @torch.no_grad()
    def _exchange(self, model: nn.Module, table: Table) -> None:
        if not self.count:
            return
        for own, value in self._pairs(model, table):
            _swap(own, value)

    def _pairs(self, model: nn.Module, table: Table) -> Iterator[tuple[Tensor, Tensor]]:
        for name, value in model.state_dict().items():
            yield self.dense[name], value
        yield self.rows.weight, table.weight.detach()


def _swap(one: Tensor, other: Tensor) -> None:
    """Exchange what two tensors hold, a block of rows at a time: no third copy of a table."""
    if not one.ndim:
        one, other = one[None], other[None]
    for some, others in zip(one.split(_ROWS), other.split(_ROWS), strict=True):
        kept = some.clone()
        some.copy_(others)
        others.copy_(kept)
