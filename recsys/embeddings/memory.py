"""What a table costs, said before it is allocated, and refused where it cannot fit."""

from dataclasses import dataclass
from pathlib import Path

from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.errors import ConfigError

_MIB = 2**20
_SHARE = 0.8  # of the free memory, where no limit is configured


@dataclass(frozen=True)
class Costs:
    """Bytes of the table and of its optimizer's state; bytes read and FLOPs of one row.

    FLOPs are those of pooling (an addition a float read) and of the row-wise update (about 4 a
    float), with one value in each multi-valued feature.
    """

    table_bytes: int
    state_bytes: int
    read_bytes: int
    flops: int

    @property
    def line(self) -> str:
        """The costs in words."""
        return (
            f"embedding: {self.table_bytes / _MIB:,.1f} MiB of weights, "
            f"{self.state_bytes / _MIB:,.1f} MiB of optimizer state; a row of the log reads "
            f"{self.read_bytes:,} bytes and takes {self.flops:,} FLOPs to pool and update"
        )


def costs(plan: EmbeddingPlan, config: TableConfig) -> Costs:
    """Return what a table of `config` costs under `plan`."""
    floats = sum(layout.num_lookups for layout in plan.layouts) * plan.dim
    return Costs(
        table_bytes=plan.table_bytes,
        state_bytes=config.memory_bytes - plan.table_bytes,
        read_bytes=floats * 4,
        flops=floats * 5,
    )


def check_memory(config: TableConfig, free_bytes: int | None, *, ranks: int = 1) -> None:
    """Refuse a table that is larger than the configuration or the machine allows.

    Args:
        config: the table.
        free_bytes: memory that is free on a rank's machine; None: not known, anything goes.
        ranks: how many share the rows.

    Raises:
        ConfigError: it says how much is needed, how much there is, and what would fit.
    """
    if config.max_memory_mib is not None:
        allowed, whose = config.max_memory_mib * _MIB, "embedding.max_memory_mib allows"
    elif free_bytes is not None:
        allowed, whose = int(free_bytes * _SHARE), "four fifths of the free memory are"
    else:
        return
    needed = -(-config.memory_bytes // ranks)
    if needed <= allowed:
        return
    row = config.memory_bytes // config.total_rows
    most = max(1, allowed * ranks // row - (config.total_rows - config.num_rows))
    raise ConfigError(
        f"the embedding table needs {needed / _MIB:,.0f} MiB on each of {ranks} process(es), "
        f"{whose} {allowed / _MIB:,.0f} MiB: set embedding.num_rows to {most:,} or less, or share "
        "it among more --workers on more machines"
    )


def free_memory_bytes() -> int | None:
    """Return the memory that this process could still take, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        free = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cached = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        )
        if limit != "max":
            free = min(free, int(limit) - used + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return max(free, 0)
