"""A table and its optimizer's state on disk, written and read by any number of ranks.

Every rank writes its rows to a file of its own, `rows-<first row>.safetensors`, and a reader takes
the slices that it needs, so what two ranks wrote opens on one or on four. Nothing is pickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys.core.errors import IntegrityError

_OF_THE_WHOLE = frozenset({"step"})
"""State that is no tensor of rows: the same on every rank."""


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


def save_table(table: Stored, folder: Path) -> Path:
    """Write `table` to `folder`; all ranks of a sharded table call this at once.

    Returns:
        The file with this rank's rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rows-{_first_row(table):012d}.safetensors"
    tensors = {name: one.detach().cpu().contiguous() for name, one in _named(table).items()}
    save_file(tensors, path)
    return path


def load_table(table: Stored, folder: Path) -> None:
    """Fill `table`, or this rank's shard of it, from what `save_table` wrote.

    Raises:
        IntegrityError: a file is missing or damaged, or the table there has another shape.
    """
    first, own = _first_row(table), _named(table)
    try:
        _fill(own, first, table.num_rows, folder)
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"checkpoint {folder} cannot be read: {error}") from None


@torch.no_grad()
def _fill(own: Mapping[str, Tensor], first: int, num_rows: int, folder: Path) -> None:
    end, reached = first + len(own["weight"]), 0
    for path in sorted(folder.glob("rows-*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            _check(opened, own, path)
            start, count = reached, opened.get_slice("weight").get_shape()[0]
            if path.stem != f"rows-{start:012d}":
                break
            reached += count
            low, high = max(first, start), min(end, reached)
            for name, tensor in own.items():
                if name in _OF_THE_WHOLE:
                    tensor.copy_(opened.get_tensor(name))
                elif low < high:
                    rows = opened.get_slice(name)[low - start : high - start]
                    tensor[low - first : high - first].copy_(rows)
    if reached != num_rows:
        raise IntegrityError(
            f"checkpoint {folder}: rows {reached} to {num_rows} of the table are missing, or the "
            "table is of another size"
        )


def _check(opened: Any, own: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file whose tensors are not of the shapes and types of the table's."""
    there = set(opened.keys())
    for name, tensor in own.items():
        found = opened.get_slice(name) if name in there else None
        shape = tuple(found.get_shape()) if found is not None else ()
        rows = slice(0, None) if name in _OF_THE_WHOLE else slice(1, None)
        if found is None or shape[rows] != tuple(tensor.shape)[rows]:
            raise IntegrityError(
                f"checkpoint {path}: '{name}' is {shape}, the run's is {tuple(tensor.shape)}"
            )


def _named(table: Stored) -> dict[str, Tensor]:
    return {"weight": table.weight, **table.state}


def _first_row(table: Stored) -> int:
    """Return the number of this rank's first row in the whole table; a call of all ranks."""
    if len(table.weight) == table.num_rows and not getattr(table, "is_sharded", False):
        return 0
    own = torch.tensor([len(table.weight)], device=table.weight.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    return sum(int(count) for count in counts[: dist.get_rank()])
