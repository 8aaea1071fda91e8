"""What a training and a scoring of any size need: what `recsys plan` says."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from recsys.app.arguments import Count, checked

if TYPE_CHECKING:
    from recsys.training.jobs.planned import Plan

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Kind = Literal["two_tower", "session", "autoint"]
_MIXED_IDS = 2.0
"""Rows of the table for each id, where no number is given."""


@checked
def plan(
    *,
    rows: Count,
    users: Count,
    items: Count,
    kind: Kind = "two_tower",
    table_rows: Count | None = None,
    dim: Count = 16,
    epochs: Count = 20,
    scored: Count | None = None,
    cores: Count = 16,
    memory_gib: Positive = 64.0,
    price: Positive | None = None,
    hours: Positive | None = None,
) -> "Plan":
    """Say what a training and a scoring need: memory, hosts, hours and cost of each stage.

    Nothing is read and nothing runs: the figures are sizes times constants that were measured, on
    logs of up to 1.5 M rows in one thread, of models with their default settings.

    Args:
        rows: interactions of the log.
        users: how many there are.
        items: how many.
        kind: two_tower, session, or autoint, which stands for the rankers, on a streamed log.
        table_rows: rows of the embedding table; None: two for each user and item.
        dim: numbers of a row of it.
        epochs: of the training.
        scored: users to recommend for, or rows for a ranker to score; None: all users, all rows.
        cores: of a host.
        memory_gib: of a host.
        price: of a host and hour, in any currency; None: no costs.
        hours: in which scoring has to be done; None: as long as one host takes.

    Example:
        >>> found = recsys.plan(rows=10**8, users=10**6, items=10**5)
        >>> [stage.name for stage in found.stages]
        ['prepare', 'train', 'evaluate', 'score']
    """
    from recsys.embeddings.table import TableConfig
    from recsys.training.jobs.measured_costs import MEASURED
    from recsys.training.jobs.planned import Hosts, Job
    from recsys.training.jobs.planned import plan as planned
    from recsys.training.jobs.scale import STREAMED, Costs, Size

    table = int(_MIXED_IDS * (users + items)) if table_rows is None else table_rows
    by_rows = kind in STREAMED
    job = Job(
        costs=Costs(kind, MEASURED[kind]),
        size=Size(rows, users, items, epochs, table),
        table=TableConfig.model_construct(num_rows=table, dim=dim),
        by_rows=by_rows,
        scored=scored or (rows if by_rows else users),
        hours=hours,
    )
    return planned(job, Hosts(cores, memory_gib, price))
