"""`recsys plan`: memory, hosts, hours and cost of a job before it is one."""

import json as json_format
from typing import Any

import click

from recsys.app.options import JSON, Finite


class _Number(click.ParamType[int]):
    """A whole number, also as 1e9 or 1_000_000."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, 1 or more."""
        try:
            number = float(value)
            if number >= 1 and number == int(number):
                return int(number)
        except (ValueError, OverflowError):
            pass
        self.fail(f"'{value}' is not a whole number of 1 or more, as 1000000 or 1e9", param, ctx)


_NUMBER = _Number()
_KINDS = click.Choice(("two_tower", "session", "autoint"))


@click.command()
@click.option("--rows", type=_NUMBER, required=True, help="Interactions of the log, as in 1e9.")
@click.option("--users", type=_NUMBER, required=True, help="How many there are.")
@click.option("--items", type=_NUMBER, required=True, help="How many there are.")
@click.option(
    "--kind",
    type=_KINDS,
    default="two_tower",
    show_default=True,
    help="Kind of model; autoint stands for the rankers, on a streamed log.",
)
@click.option(
    "--table",
    "table_rows",
    type=_NUMBER,
    help="Rows of the embedding table; default: two for each user and item.",
)
@click.option("--dim", type=_NUMBER, default=16, show_default=True, help="Numbers of such a row.")
@click.option("--epochs", type=_NUMBER, default=20, show_default=True, help="Of the training.")
@click.option(
    "--scored",
    type=_NUMBER,
    help="Users to recommend for, or rows for a ranker to score; default: all.",
)
@click.option("--cores", type=_NUMBER, default=16, show_default=True, help="Of a host.")
@click.option(
    "--memory",
    "memory_gib",
    type=Finite(min=0, min_open=True),
    default=64.0,
    show_default=True,
    help="Of a host, in GiB.",
)
@click.option("--price", type=Finite(min=0, min_open=True), help="Of a host and hour.")
@click.option(
    "--hours",
    type=Finite(min=0, min_open=True),
    help="In which scoring has to be done; default: as long as one host takes.",
)
@JSON
def plan(as_json: bool, **options: Any) -> None:
    """Say what a training and a scoring would need: nothing is read and nothing runs.

    Memory, hosts, hours and cost of each stage, from constants that were measured on smaller logs.

    Example: recsys plan --rows 1e9 --users 1e7 --items 1e6 --memory 256 --price 2.5
    """
    from recsys.app.planning import plan as planned

    found = planned(**options)
    if as_json:
        click.echo(json_format.dumps(found.facts(), indent=1))
        return
    click.echo(f"embedding table: {found.table_gib:,.1f} GiB with its optimizer's state\n")
    priced = options["price"] is not None
    heads = ("stage", "CPU hours", "GiB a host", "hosts", "hours", *(["cost"] if priced else []))
    click.echo(f"{heads[0]:<9}" + "".join(f"{head:>14}" for head in heads[1:]))
    for one in found.stages:
        cells = [f"{one.cpu_hours:,.2f}", f"{one.memory_gib:,.1f}", f"{one.hosts:,}"]
        cells += [f"{one.hours:,.2f}", *([f"{one.cost:,.2f}"] if priced else [])]
        click.echo(f"{one.name:<9}" + "".join(f"{cell:>14}" for cell in cells))
    for line in found.refused:
        click.echo(f"\nnot possible: {line}")
    click.echo("\nassumed:")
    for line in found.assumed:
        click.echo(f"  {line}")
