"""A table and its optimizer's state on disk, written and read by any number of ranks.

`torch.distributed.checkpoint`: every rank writes its rows, and a reader takes the slices
that it needs, so a checkpoint of two ranks opens on one or on four. Its index is pickled: good
for the resume of one's own run, and never for what is handed to others.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.errors import IntegrityError


class Stored(Protocol):
    """What of a `Table` goes to disk."""

    @property
    def weight(self) -> Tensor:
        """As `Table.weight`."""

    @property
    def state(self) -> dict[str, Tensor]:
        """As `Table.state`."""

    @property
    def num_rows(self) -> int:
        """As `Table.num_rows`."""


@dataclass(frozen=True)
class StoredRows:
    """Rows like those of a table, without an optimizer: a copy of it, sharded as it is."""

    weight: Tensor
    num_rows: int
    is_sharded: bool

    @property
    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def save_table(table: Stored, folder: Path) -> None:
    """Write `table` to `folder`; all ranks of a sharded table call this at once."""
    from torch.distributed.checkpoint.state_dict_saver import save

    with _quiet():
        save(_named(table), checkpoint_id=folder, no_dist=not _is_sharded(table))


def load_table(table: Stored, folder: Path) -> None:
    """Fill `table`, or this rank's shard of it, from what `save_table` wrote.

    Raises:
        IntegrityError: a file is missing or damaged, or the table there has another shape.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    named = _named(table)
    try:
        written = FileSystemReader(folder).read_metadata().state_dict_metadata
    except Exception as error:  # a damaged pickle may raise anything
        raise IntegrityError(f"checkpoint {folder} cannot be read: {error}") from None
    for name, tensor in named.items():
        size = tuple(getattr(written.get(name), "size", ()))
        if size != tuple(tensor.shape):
            raise IntegrityError(
                f"checkpoint {folder}: '{name}' is {size}, the run's is {tuple(tensor.shape)}"
            )
    try:
        with _quiet():
            load(named, checkpoint_id=folder, no_dist=not _is_sharded(table))
    except CheckpointException as error:  # on every rank, whichever could not read
        why = "; ".join(str(own[0]) for own in error.failures.values())
        raise IntegrityError(f"checkpoint {folder} cannot be read: {why}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """One process alone is what a plain table means: no warning is needed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _named(table: Stored) -> dict[str, Any]:
    tensors = {"weight": table.weight, **table.state}
    if not _is_sharded(table):
        return {name: tensor.detach() for name, tensor in tensors.items()}
    return {
        name: _global(tensor.detach(), table.num_rows) if name != "step" else tensor
        for name, tensor in tensors.items()
    }


def _is_sharded(table: Stored) -> bool:
    return len(table.weight) != table.num_rows or getattr(table, "is_sharded", False)


def _global(local: Tensor, num_rows: int) -> Any:
    """Return this rank's rows as a part of the whole tensor."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh(local.device.type, (dist.get_world_size(),))
    shape = torch.Size((num_rows, *local.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
