"""What a table costs, said before it is allocated, and refused where it cannot fit."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig

_MIB = 2**20
_CHECKPOINTS = 3


@dataclass(frozen=True)
class Costs:
    """Bytes of the table and of its optimizer's state; bytes and FLOPs of a row, of a batch.

    FLOPs are those of pooling (an addition a float read) and of the row-wise update (about 4 a
    float), with one value in each multi-valued feature. `batch_bytes` is what the embedded rows
    of a batch and their gradients take, which is freed after each step.
    """

    table_bytes: int
    state_bytes: int
    read_bytes: int
    flops: int
    batch_bytes: int

    @property
    def line(self) -> str:
        """The costs as text."""
        return (
            f"embedding: {self.table_bytes / _MIB:,.1f} MiB of weights, "
            f"{self.state_bytes / _MIB:,.1f} MiB of optimizer state; a row of the log reads "
            f"{self.read_bytes:,} bytes and takes {self.flops:,} FLOPs to pool and update"
        )


def costs(plan: EmbeddingPlan, config: TableConfig, batch_size: int = 1) -> Costs:
    """Return what a table of `config` costs under `plan`, a batch being `batch_size` rows."""
    floats = sum(layout.num_lookups for layout in plan.layouts) * plan.dim
    return Costs(
        table_bytes=plan.table_bytes,
        state_bytes=config.memory_bytes - plan.table_bytes,
        read_bytes=floats * 4,
        flops=floats * 5,
        batch_bytes=2 * batch_size * floats * 4,
    )


def check_memory(
    config: TableConfig,
    free_bytes: int | None,
    *,
    ranks: int = 1,
    ranks_here: int | None = None,
    gathered_bytes: int = 0,
    copies: int = 0,
) -> None:
    """Refuse a table that is larger than the configuration or the machine allows.

    Args:
        config: the table.
        free_bytes: memory that is free on this machine; None: not known, anything goes.
        ranks: how many processes share the rows.
        ranks_here: how many of them run on this machine and so share what is free; None: all.
        gathered_bytes: what one process of this machine holds of the whole table in the end.
        copies: of the weights, that the training keeps in addition.

    Raises:
        ConfigError: it says how much is needed, how much there is, and what would fit.
    """
    shared = 0
    if config.max_memory_mib is not None:
        allowed, whose = config.max_memory_mib * _MIB, "embedding.max_memory_mib allows"
    elif free_bytes is not None:
        # Integers alone: a float would round what is allowed.
        here = ranks_here or ranks
        allowed = free_bytes * 4 // (5 * here)
        shared = gathered_bytes // here
        whose = "four fifths of the free memory are"
    else:
        return
    row_bytes = config.memory_bytes // config.total_rows + copies * config.dim * 4
    needed = -(-row_bytes * config.total_rows // ranks) + shared
    if needed <= allowed:
        return
    each = f" on each of {ranks} processes" if ranks > 1 else ""
    grouped = config.total_rows - config.num_rows
    most = allowed * ranks // (row_bytes + shared * ranks // config.total_rows) - grouped
    remedy = f"set embedding.num_rows to {most:,} or less"
    if most < 1:
        remedy = f"the {grouped:,} rows of embedding.groups alone are too many"
        if not grouped:
            remedy = f"a single row of embedding.dim {config.dim} does not fit"
    raise ConfigError(
        f"the embedding table needs {-(-needed // _MIB):,} MiB{each} (weights and optimizer "
        f"state{', their average' if copies else ''}"
        f"{', and the whole table at the end' if shared else ''}), {whose} "
        f"{allowed // _MIB:,} MiB{each and ' each'}: {remedy}"
    )


def fits_one_process(config: TableConfig, free_bytes: int | None) -> str:
    """Return a sentence for who shares out a table that one process holds with ease, or "".

    Args:
        config: the table.
        free_bytes: memory that is free on this machine; None: not known.
    """
    if free_bytes is None or 4 * config.memory_bytes > free_bytes:
        return ""
    return (
        f"the table needs {config.memory_bytes / _MIB:,.1f} MiB, which one process has: without "
        "--workers training takes less CPU time, and was faster where it was measured "
        "(docs/several-machines.md)"
    )


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that this process could still take, None where the system does not say.

    On Linux MemAvailable of /proc/meminfo, or what is left below the limit of a control group
    that the process is in, if that is less; `root` is the folder of /proc and /sys.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        free = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return max(min([free, *_left_in_groups(root)]), 0)


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left below each limit that holds for this process, in bytes."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2: one tree for everything
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif controllers == "memory":
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Within a container the path may be the host's, and the mount itself be the group.
        group = mount / path.strip("/")
        while group.is_relative_to(mount):
            yield from _left_in(group, *names)
            group = group.parent


def _left_in(group: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Files in the page cache that are not in use are freed.
        used_bytes = int((group / used).read_text()) - int(stat.get(cache, 0))
        yield int((group / limit).read_text()) - used_bytes  # "max" is no number: no limit
    except (OSError, ValueError):
        return


def check_disk(config: TableConfig, folder: Path, *, copies: int = 0) -> None:
    """Refuse a training whose checkpoints do not fit on the disk.

    Args:
        config: of the table, which is nearly all of a checkpoint.
        folder: where the run is, or will be.
        copies: of the weights that are saved with it.

    Raises:
        ConfigError: fewer bytes are free than three checkpoints take (the last two and the best).
    """
    one = config.memory_bytes + copies * config.total_rows * config.dim * 4
    there = next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir()
    )
    free = shutil.disk_usage(there).free
    if free < _CHECKPOINTS * one:
        raise ConfigError(
            f"{folder}: three checkpoints of this training take {_CHECKPOINTS * one / _MIB:,.0f} "
            f"MiB, {free / _MIB:,.0f} MiB are free: free some, set 'output' to another disk, or a "
            "smaller embedding.num_rows"
        )
