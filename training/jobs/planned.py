"""What a job of any size needs: memory, hosts, hours and cost of each stage, from measured costs.

Arithmetic alone; nothing is read and nothing runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from recsys.embeddings.table import TableConfig
from recsys.training.jobs.scale import Costs, Size

_GIB, _HOUR = 2**30, 3600.0
_USABLE = 0.85
"""Share of a host's memory that is planned with."""
SERIAL = 0.16
"""Share of a step that more threads do not speed up: two took .58 of the time of one."""
WORKERS = 1.25
"""CPU time of scoring in several processes, in that of one."""


@dataclass(frozen=True)
class Hosts:
    """The machines: cores, memory in GiB, and price an hour of each (None: costs are not said)."""

    cores: int
    memory_gib: float
    price: float | None = None

    @property
    def usable_gib(self) -> float:
        """Memory that a job may take."""
        return self.memory_gib * _USABLE

    @property
    def speed(self) -> float:
        """How much faster all cores are than one, in one process (Amdahl)."""
        return 1 / (SERIAL + (1 - SERIAL) / self.cores)


@dataclass(frozen=True)
class Stage:
    """One stage: CPU hours of one thread, GiB a host, hosts, hours by the clock, what it costs."""

    name: str
    cpu_hours: float
    memory_gib: float
    hosts: int
    hours: float
    cost: float | None


@dataclass(frozen=True)
class Plan:
    """What a job needs.

    Attributes:
        stages: prepare (read and encode), train, evaluate (with index, report and bundle), score.
        table_gib: the embedding table with its optimizer's state.
        refused: what such hosts cannot do, and what they can.
        assumed: what the figures rest on beyond what was measured.
    """

    stages: tuple[Stage, ...]
    table_gib: float
    refused: tuple[str, ...]
    assumed: tuple[str, ...]

    def facts(self) -> dict[str, object]:
        """Return everything by name, as plain values."""
        return {**vars(self), "stages": [dict(vars(stage)) for stage in self.stages]}


@dataclass(frozen=True)
class Job:
    """What is planned.

    costs: the constants of the kind of model. size: of the log and of the model. table: its sizes
    alone count. by_rows: a ranker, of which rows are scored, and whose log is streamed from disk.
    scored: users, or rows, to score. hours: in which scoring has to be done; None: on one host.
    """

    costs: Costs
    size: Size
    table: TableConfig
    by_rows: bool
    scored: float
    hours: float | None = None

    @property
    def asked(self) -> Size:
        """The size of the scoring."""
        if self.by_rows:
            return replace(self.size, rows=self.scored)
        return replace(self.size, users=self.scored)

    def memory_gib(self, size: Size) -> float:
        """Memory of a process that holds the log, without the table."""
        return self.costs.of(size)["train_mib"] / 1024


def plan(job: Job, hosts: Hosts) -> Plan:
    """Return what the job needs on such hosts."""
    cpu = {name: made / _HOUR for name, made in job.costs.of(job.size).items()}
    score = job.costs.of(job.asked)["score_cpu_s"] * WORKERS / _HOUR
    log, table = job.memory_gib(job.size), job.table.memory_bytes / _GIB
    room = hosts.usable_gib
    spread = max(1, ceil(table / (room - log))) if room > log else 1
    processes = max(1, min(hosts.cores, int(room / job.memory_gib(job.asked))))
    scorers = max(1, ceil(score / (job.hours * processes))) if job.hours else 1
    made = (
        ("prepare", cpu["prepare_cpu_s"], log, 1, cpu["prepare_cpu_s"]),
        (
            "train",
            cpu["train_cpu_s"],
            log + table / spread,
            spread,
            cpu["train_cpu_s"] / hosts.speed,
        ),
        ("evaluate", cpu["finish_cpu_s"], log + table, 1, cpu["finish_cpu_s"] / hosts.speed),
        (
            "score",
            score,
            processes * job.memory_gib(job.asked),
            scorers,
            score / (scorers * processes),
        ),
    )
    stages = tuple(
        Stage(*one, None if hosts.price is None else one[3] * one[4] * hosts.price) for one in made
    )
    return Plan(stages, table, tuple(_refused(job, log, table, room)), tuple(_assumed(job, spread)))


def _refused(job: Job, log: float, table: float, room: float) -> Iterator[str]:
    if log > room:
        none = job.memory_gib(replace(job.size, rows=0.0))
        said = "the items alone do not fit: take a larger host"
        if none < room:
            fit = (room - none) / (log - none) * job.size.rows
            said = (
                f"{fit:,.0f} rows fit: train on the newest (schema.interactions.where) or on a "
                "share of the users, or take a larger host"
            )
        yield f"the log takes {log:,.0f} GiB on every host, of {room:,.0f} that are usable; {said}"
    elif log + table > room:
        yield (
            f"the first host collects the whole table to evaluate and to write it: "
            f"{log + table:,.0f} GiB, of {room:,.0f} that are usable; take one larger host, or a "
            "smaller table"
        )


def _assumed(job: Job, spread: int) -> Iterator[str]:
    yield (
        "threads: two were measured; more are taken to follow Amdahl's law with a serial share of "
        f"{SERIAL:.0%}"
    )
    if spread > 1:
        yield f"training on {spread} hosts shares the table's memory and is taken to be no faster"
    yield f"scoring in several processes takes {WORKERS:g} times the CPU time of one"
    if not job.by_rows:
        yield "every user is compared with every item; --approximate is cheaper from 1 M items on"
